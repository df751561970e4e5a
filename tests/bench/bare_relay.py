"""The least that can stand between a client and the provider: it relays bytes and knows nothing."""

import argparse
from collections.abc import AsyncIterator

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def create_app(provider_url: str) -> Starlette:
    """An app whose only route sends a text to the provider and relays its stream."""
    client = httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits(max_connections=None))

    async def relay(request: Request) -> Response:
        content = (await request.json())["content"]
        body = {"model": "bare", "stream": True, "input": [{"role": "user", "content": content}]}
        upstream = client.build_request("POST", f"{provider_url}/v1/responses", json=body)
        response = await client.send(upstream, stream=True)

        async def relayed() -> AsyncIterator[bytes]:
            async for part in response.aiter_raw():
                yield part
            await response.aclose()

        return StreamingResponse(relayed(), media_type="text/event-stream")

    return Starlette(routes=[Route("/", relay, methods=["POST"]), Route("/health", lambda _: Response())])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--provider-url", required=True)
    options = parser.parse_args()
    uvicorn.run(create_app(options.provider_url), port=options.port, log_level="error", http="h11")
