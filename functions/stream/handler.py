"""The streaming operations, as an ASGI app for the runtime of layers/stream_runtime."""

import gc

from starlette.types import Receive, Scope, Send

from minichat.http.app import STREAMING, create_app
from minichat.services.generate import with_answers
from minichat.settings import current

_app = create_app(current(), STREAMING)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one request. Lambda freezes the process at its end, so an answer whose client left is finished first."""
    await with_answers(_app(scope, receive, send))


# Everything imported so far stays: the collector need not scan it again.
gc.freeze()
gc.enable()
