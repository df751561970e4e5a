"""The streaming operations, as an ASGI app for the runtime of layers/stream_runtime."""

import gc

from starlette.types import Receive, Scope, Send

from minichat.http.app import STREAMING, create_app
from minichat.services.generate import all_ended
from minichat.settings import current

_app = create_app(current(), STREAMING)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one request. With its end the process is frozen, so an answer whose connection broke is made first."""
    try:
        await _app(scope, receive, send)
    finally:
        await all_ended()


# What is there now stays, and is never looked through again.
gc.freeze()
gc.enable()
