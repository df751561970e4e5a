"""The buffered operations, behind API Gateway."""

import gc
from typing import Any

from mangum import Mangum

from minichat.http.app import BUFFERED, create_app
from minichat.http.problems import MEDIA_TYPE
from minichat.settings import current

PORT = "x-forwarded-port"

# Mangum sends every type that it does not know as base64, which clients of a REST API would see.
_answer = Mangum(
    create_app(current(), BUFFERED), lifespan="off", text_mime_types=["text/", "application/json", MEDIA_TYPE]
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The response to an event of a REST API."""
    # Mangum parses the port as a number; behind a proxy the header may list several, and we need none of them.
    for name in ("headers", "multiValueHeaders"):
        event[name] = {key: given for key, given in (event.get(name) or {}).items() if key.lower() != PORT}
    return _answer(event, context)


# Everything imported so far stays: the collector need not scan it again.
gc.freeze()
gc.enable()
