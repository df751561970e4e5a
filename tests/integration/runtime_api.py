"""The Lambda Runtime API and the API Gateway in front of it, as far as streaming goes: chunks are seen as they come."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

Chunk = bytes | dict[str, Any]


@dataclass
class Streamed:
    """A response as it arrives: its head, then one entry per HTTP chunk, then the trailers."""

    head: dict[str, Any] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    _chunks: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def chunk(self) -> bytes | None:
        """The next chunk of the body; None after the last."""
        async with asyncio.timeout(10):
            return await self._chunks.get()

    async def rest(self) -> bytes:
        """All that is left of the body."""
        found = b""
        while (chunk := await self.chunk()) is not None:
            found += chunk
        return found


class RuntimeApi:
    """Hands out events and takes responses; `init_errors` has what was posted there."""

    def __init__(self) -> None:
        self.init_errors: list[dict[str, Any]] = []
        self.restores = 0
        self._events: asyncio.Queue[tuple[str, dict[str, Any], int]] = asyncio.Queue()
        self._responses: dict[str, Streamed] = {}
        self._started: dict[str, asyncio.Event] = {}
        self._broken: set[str] = set()

    async def __aenter__(self) -> "RuntimeApi":
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.host = "127.0.0.1:" + str(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.close()

    async def invoke(self, event: dict[str, Any], *, seconds: float = 900, breaks: bool = False) -> Streamed:
        """The response to an event, as soon as its head has arrived; the invocation may take so many seconds.

        Its connection `breaks` right after that, where so wanted.
        """
        request_id = f"request-{len(self._responses)}"
        self._broken |= {request_id} if breaks else set()
        self._responses[request_id], self._started[request_id] = Streamed(), asyncio.Event()
        self._events.put_nowait((request_id, event, int((time.time() + seconds) * 1000)))
        async with asyncio.timeout(20):
            await self._started[request_id].wait()
        return self._responses[request_id]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers = await _headers(reader)
                if path.endswith("/invocation/next"):
                    request_id, event, deadline = await self._events.get()
                    body = json.dumps(event).encode()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nLambda-Runtime-Deadline-Ms: %d\r\n"
                        b"Lambda-Runtime-Aws-Request-Id: %s\r\n\r\n%s"
                        % (len(body), deadline, request_id.encode(), body)
                    )
                    continue
                assert method in ("GET", "POST")
                if path.endswith("/init/error"):
                    self.init_errors.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
                elif path.endswith("/restore/next"):
                    self.restores += 1
                else:
                    await self._response(path.split("/")[4], headers, reader)
                writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _response(self, request_id: str, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        assert headers["lambda-runtime-function-response-mode"] == "streaming"
        assert headers["content-type"] == "application/vnd.awslambda.http-integration-response"
        streamed = self._responses[request_id]
        before = b""
        while size := int(await reader.readline(), 16):
            data = await reader.readexactly(size)
            await reader.readexactly(2)
            if self._started[request_id].is_set():
                streamed._chunks.put_nowait(data)
                continue
            before += data
            if b"\0" * 8 in before:
                prelude, _, rest = before.partition(b"\0" * 8)
                streamed.head = json.loads(prelude)
                self._started[request_id].set()
                if request_id in self._broken:
                    raise ConnectionResetError
                if rest:
                    streamed._chunks.put_nowait(rest)
        streamed.trailers = await _headers(reader)
        streamed._chunks.put_nowait(None)


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    found = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        found[name.lower()] = value.strip()
    return found
