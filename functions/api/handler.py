"""The buffered operations, behind API Gateway."""

from mangum import Mangum

from minichat.http.app import BUFFERED, create_app
from minichat.settings import current

handler = Mangum(create_app(current(), BUFFERED), lifespan="off")
