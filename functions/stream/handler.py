"""The streaming operations, as an ASGI app for the runtime of layers/stream_runtime."""

from minichat.http.app import STREAMING, create_app
from minichat.settings import current

app = create_app(current(), STREAMING)
