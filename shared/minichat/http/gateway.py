"""An app as the handler of a REST API's events."""

from collections.abc import Callable
from typing import Any

from mangum import Mangum
from starlette.middleware.cors import CORSMiddleware

from minichat.http.edge import Edge
from minichat.http.problems import MEDIA_TYPE

PORT = "x-forwarded-port"


def behind_gateway(app: Edge | CORSMiddleware) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """The handler that answers an event of a REST API with the app's response."""
    # Mangum sends every type that it does not know as base64, which clients of a REST API would see.
    answer = Mangum(app, lifespan="off", text_mime_types=["text/", "application/json", MEDIA_TYPE])

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        # Mangum parses the port as a number; behind a proxy the header may list several, and we need none of them.
        for name in ("headers", "multiValueHeaders"):
            event[name] = {key: given for key, given in (event.get(name) or {}).items() if key.lower() != PORT}
        return answer(event, context)

    return handler
