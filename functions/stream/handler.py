"""The streaming operations, as an ASGI app for the runtime of layers/stream_runtime."""

import gc

from minichat.http.app import STREAMING, create_app
from minichat.settings import current

app = create_app(current(), STREAMING)

# What is there now stays, and is never looked through again.
gc.freeze()
gc.enable()
