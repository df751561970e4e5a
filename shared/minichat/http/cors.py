"""Which pages of other origins may call (CORS, in the Fetch standard): none, unless the deployment names them.

Pages send their token themselves. Cookies are never used, so no response allows credentials.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SENT_HEADERS = (
    *("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "traceparent", "X-Request-Id"),
)
READ_HEADERS = ("Location", "Preference-Applied", "Retry-After", "Server-Timing", "X-Request-Id", "X-Trace-Id")
MAX_AGE_SECONDS = 7200
"""How long a browser may cache a preflight; none caches it for longer."""


App = TypeVar("App", bound=ASGIApp)


def allowing(origins: Sequence[str], app: App) -> App | CORSMiddleware:
    """The app for these origins: it answers preflights, and every response, even a refusal, says who may read it.

    Without origins, the app unchanged.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_origin_regex=_of_any_port(origins),
        allow_methods=METHODS,
        allow_headers=SENT_HEADERS,
        expose_headers=READ_HEADERS,
        max_age=MAX_AGE_SECONDS,
    )


def _of_any_port(origins: Sequence[str]) -> str | None:
    """What the origins match that end in `:*`; browsers leave a default port away."""
    hosts = [re.escape(origin.removesuffix(":*")) for origin in origins if origin.endswith(":*")]
    return rf"({'|'.join(hosts)})(:\d+)?" if hosts else None
