"""Serves an ASGI app through the Lambda Runtime API, with response streaming.

The managed Python runtime has no streaming of its own, so this loop takes its place (docs/decisions/0005). One
invocation at a time:

    GET  /2018-06-01/runtime/invocation/next             an API Gateway REST event
    POST /2018-06-01/runtime/invocation/<id>/response    status and headers as JSON, eight NUL bytes, then the body:
                                                         one HTTP chunk per ASGI message, as the app sends it

Nothing is sent before the app has decided status and headers. A failure before that is an ordinary 500; a failure after
it can only be told in the trailers, so apps tell theirs in the stream. The function is never told that a client left:
`receive` blocks after the body, and the answer is written to its end.
"""

import asyncio
import base64
import importlib
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, urlencode

API = "/2018-06-01/runtime"
STREAM_HEADERS = (
    "Lambda-Runtime-Function-Response-Mode: streaming\r\n"
    "Transfer-Encoding: chunked\r\n"
    "Content-Type: application/vnd.awslambda.http-integration-response\r\n"
    "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n"
    "Connection: close\r\n"
)
END_OF_PRELUDE = b"\0" * 8
# Headers that belong to one connection; the response travels over another.
HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class Response:
    """One streamed response, on a connection of its own."""

    def __init__(self, host: str, request_id: str) -> None:
        self._host = host
        self._request_id = request_id
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._body_sent = False

    @property
    def started(self) -> bool:
        """Whether status and headers are on their way."""
        return self._writer is not None

    async def send(self, message: Message) -> None:
        """Takes an ASGI message: each is written, and waited for, before the next."""
        if message["type"] == "http.response.start":
            await self._start(message["status"], message.get("headers", ()))
        elif body := bytes(message.get("body", b"")):
            await self._chunk(body)
            self._body_sent = True

    async def fail(self, error: BaseException) -> None:
        """Ends the response with what went wrong: as a 500 when nothing was sent yet, in its trailers otherwise."""
        if not self.started:
            document = {"title": "internal_error", "status": 500, "code": "internal_error", "detail": "Internal error."}
            await self._start(500, [(b"content-type", b"application/problem+json")])
            await self._chunk(json.dumps(document).encode())
            await self.finish()
            return
        told = json.dumps(_described(error)).encode()
        await self._end(
            f"Lambda-Runtime-Function-Error-Type: {type(error).__name__}\r\n"
            f"Lambda-Runtime-Function-Error-Body: {base64.b64encode(told).decode()}\r\n"
        )

    async def finish(self) -> None:
        """Ends the response. An empty body would leave the client hanging, so it gets a line end."""
        if not self._body_sent:
            await self._chunk(b"\n")
        await self._end("")

    async def _start(self, status: int, headers: Any) -> None:
        self._reader, self._writer = await _connect(self._host)
        named: dict[str, str] = {}
        cookies: list[str] = []
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name == "set-cookie":
                cookies.append(value)
            elif name not in HOP_BY_HOP:
                named[name] = f"{named[name]}, {value}" if name in named else value
        prelude = {"statusCode": status, "headers": named, "cookies": cookies}
        path = f"{API}/invocation/{self._request_id}/response"
        self._writer.write(f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\n{STREAM_HEADERS}\r\n".encode())
        await self._chunk(json.dumps(prelude).encode() + END_OF_PRELUDE)

    async def _chunk(self, data: bytes) -> None:
        assert self._writer is not None, "the app sent a body before its start"
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    async def _end(self, trailers: str) -> None:
        assert self._reader is not None
        assert self._writer is not None
        self._writer.write(f"0\r\n{trailers}\r\n".encode())
        await self._writer.drain()
        status = await self._reader.readline()
        self._writer.close()
        if b" 202 " not in status:
            print(f"the runtime API refused a response: {status!r}", file=sys.stderr)


def scope_of(event: dict[str, Any], *, deadline_ms: int, request_id: str) -> dict[str, Any]:
    """The ASGI scope of an API Gateway REST event; `state` has the invocation's deadline (Unix milliseconds) and id."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, values in (event.get("multiValueHeaders") or {}).items()
        for value in values
    ]
    query = urlencode(event.get("multiValueQueryStringParameters") or {}, doseq=True)
    path = event["path"]
    client = ((event.get("requestContext") or {}).get("identity") or {}).get("sourceIp") or ""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": event["httpMethod"],
        "scheme": "https",
        "path": path,
        "raw_path": quote(path, safe="/:%").encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": (client, 0),
        "server": ("lambda", 443),
        "state": {"deadline_ms": deadline_ms, "aws_request_id": request_id},
    }


def body_of(event: dict[str, Any]) -> bytes:
    """The request's body as bytes."""
    body: str = event.get("body") or ""
    return base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()


async def serve(app: AsgiApp, host: str) -> None:
    """Takes invocations for ever."""
    reader, writer = await _connect(host)
    while True:
        headers, event = await _next(reader, writer, host)
        request_id = headers["lambda-runtime-aws-request-id"]
        os.environ["_X_AMZN_TRACE_ID"] = headers.get("lambda-runtime-trace-id", "")
        deadline_ms = int(headers.get("lambda-runtime-deadline-ms", 0))
        await _invoke(app, event, scope_of(event, deadline_ms=deadline_ms, request_id=request_id), host)


async def _invoke(app: AsgiApp, event: dict[str, Any], scope: dict[str, Any], host: str) -> None:
    response = Response(host, scope["state"]["aws_request_id"])
    requests = [{"type": "http.request", "body": body_of(event), "more_body": False}]

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await asyncio.Event().wait()
        raise AssertionError("unreachable: nothing sets the event")

    try:
        await app(scope, receive, response.send)
    except Exception as error:  # the edge of the process: whatever it is, the invocation must end
        traceback.print_exc()
        await response.fail(error)
    else:
        if response.started:
            await response.finish()
        else:
            await response.fail(RuntimeError("the app sent no response"))


async def _next(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str
) -> tuple[dict[str, str], dict[str, Any]]:
    writer.write(f"GET {API}/invocation/next HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    headers = await _head(reader)
    return headers, json.loads(await reader.readexactly(int(headers["content-length"])))


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    if not await reader.readline():
        raise ConnectionError("the runtime API has gone")
    headers: dict[str, str] = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return headers


async def _post(host: str, path: str, document: dict[str, Any]) -> None:
    reader, writer = await _connect(host)
    body = json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    await _head(reader)
    writer.close()


async def _restored(host: str) -> None:
    """Tells that initialization is over, and returns in each restored copy of this process (SnapStart)."""
    reader, writer = await _connect(host)
    writer.write(f"GET {API}/restore/next HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    await _head(reader)
    writer.close()


async def _connect(host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name, _, port = host.partition(":")
    return await asyncio.open_connection(name, int(port), limit=16 * 1024 * 1024)


def _described(error: BaseException) -> dict[str, Any]:
    return {
        "errorType": type(error).__name__,
        "errorMessage": str(error),
        "stackTrace": traceback.format_tb(error.__traceback__),
    }


async def run(handler: str, host: str) -> int:
    """Imports `package.module.app` and serves it; 1 when it cannot be imported, after having told Lambda why."""
    module, _, name = handler.rpartition(".")
    try:
        app: AsgiApp = getattr(importlib.import_module(module), name)
    except Exception as error:  # the edge of the process: Lambda shows what it is told here
        traceback.print_exc()
        await _post(host, f"{API}/init/error", _described(error))
        return 1
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        await _restored(host)
    await serve(app, host)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(run(os.environ["_HANDLER"], os.environ["AWS_LAMBDA_RUNTIME_API"])))
