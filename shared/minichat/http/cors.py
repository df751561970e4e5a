"""Which pages may call from another origin (CORS, in the Fetch standard): none, unless a deployment says so.

Callers are known by a token that a page sends by itself. Cookies are never asked for, so no answer allows credentials.
"""

from collections.abc import Sequence
from typing import TypeVar

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SENT_HEADERS = (
    *("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "traceparent", "X-Request-Id"),
)
READ_HEADERS = ("Location", "Preference-Applied", "Retry-After", "Server-Timing", "X-Request-Id")
MAX_AGE_SECONDS = 7200
"""For how long a browser need not ask again; none remembers it for longer."""


App = TypeVar("App", bound=ASGIApp)


def allowing(origins: Sequence[str], app: App) -> App | CORSMiddleware:
    """The app for these origins: preflights are answered, and every answer, a refusal too, says who may read it.

    Without an origin it is the app as it was.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=SENT_HEADERS,
        expose_headers=READ_HEADERS,
        max_age=MAX_AGE_SECONDS,
    )
