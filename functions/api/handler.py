"""The buffered operations, behind API Gateway."""

import gc

from mangum import Mangum

from minichat.http.app import BUFFERED, create_app
from minichat.http.problems import MEDIA_TYPE
from minichat.settings import current

# Mangum sends every type that it does not know as base64, which clients of a REST API would see.
handler = Mangum(
    create_app(current(), BUFFERED), lifespan="off", text_mime_types=["text/", "application/json", MEDIA_TYPE]
)

# What is there now stays, and is never looked through again.
gc.freeze()
gc.enable()
