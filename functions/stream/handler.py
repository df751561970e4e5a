"""The streaming operations, as an ASGI app for the runtime of layers/stream_runtime."""

import gc

from starlette.types import Receive, Scope, Send

from minichat.http.app import STREAMING, create_app
from minichat.services.generate import with_answers
from minichat.settings import current

_app = create_app(current(), STREAMING)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one request. With its end the process may be frozen, so an answer whose connection broke is made first."""
    await with_answers(_app(scope, receive, send))


# What is there now stays, and is never looked through again.
gc.freeze()
gc.enable()
