"""The buffered operations, behind API Gateway."""

import gc

from minichat.http.app import BUFFERED, create_app
from minichat.http.gateway import behind_gateway
from minichat.settings import current

handler = behind_gateway(create_app(current(), BUFFERED))

# Everything imported so far stays: the collector need not scan it again.
gc.freeze()
gc.enable()
