"""The Lambda Runtime API and the API Gateway in front of it, as far as streaming goes: chunks are seen as they come.

It serves one runtime process, and frames and refuses as AWS's emulator does (test_runtime_api.py asks both). A test may
choose other framings, pieces and pauses for its events, and what goes wrong at the next requests.

To a runtime that takes several invocations at once (Lambda Managed Instances) it gives as many as that and no more: who
asks for one more is refused. AWS's emulator knows one at a time, so of this nobody else can be asked.
"""

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import h11

from tests.support.aws.deliveries import Delivery, Drops, Fault, Holds, Refuses, as_aws

API = "/2018-06-01/runtime"
MAX_RESPONSE_BYTES = 6_291_556
"""Of the emulator, for streams too; Lambda streams up to 200 MB."""
MAX_TRAILER_BYTES = 4096
"""Go's server breaks off where trailers are longer than its buffer."""
MAX_PRELUDE_BYTES = 16_384
"""API Gateway looks for the eight NUL bytes in the first 16 KB."""

LINGER_SECONDS = 0.5


@dataclass
class Streamed:
    """A response as it arrives: its head, then one entry per HTTP chunk, then the trailers; or the error instead."""

    head: dict[str, Any] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Of the runtime's request."""
    _chunks: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def chunk(self) -> bytes | None:
        """The next chunk of the body; None after the last."""
        async with asyncio.timeout(20):
            return await self._chunks.get()

    async def rest(self) -> bytes:
        """All that is left of the body."""
        found = b""
        while (chunk := await self.chunk()) is not None:
            found += chunk
        return found


@dataclass
class _Invocation:
    request_id: str
    event: bytes
    headers: dict[str, str]
    state: str = "Running"
    streamed: Streamed = field(default_factory=Streamed)
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    sent: bytes = b""
    """Of the response, until the prelude has been found."""

    def settle(self, **said: Any) -> None:
        """The client has an answer, or the beginning of one."""
        for name, value in said.items():
            setattr(self.streamed, name, value)
        self.decided.set()

    def take(self, chunk: bytes) -> None:
        """A chunk of the response."""
        if self.decided.is_set():
            self.streamed._chunks.put_nowait(chunk)
            return
        self.sent += chunk
        prelude, found, rest = self.sent.partition(b"\0" * 8)
        if found or len(self.sent) > MAX_PRELUDE_BYTES:
            self.settle(head=_head(prelude) if found and len(prelude) <= MAX_PRELUDE_BYTES else _BAD_GATEWAY)
            if rest:
                self.streamed._chunks.put_nowait(rest)

    def end(self) -> None:
        """Nothing more comes."""
        if not self.decided.is_set():
            self.settle(head=_BAD_GATEWAY)
        self.streamed._chunks.put_nowait(None)


class RuntimeApi:
    """Hands out events and takes responses. `refused` has what was refused, `lost` responses that broke off."""

    def __init__(self, at_most: int = 1) -> None:
        self.at_most = at_most
        self.asking = 0
        """Requests for an invocation that wait for one, where there may be several."""
        self.delivery = Delivery()
        self.at_next: deque[Fault | None] = deque()
        self.at_response: deque[Fault] = deque()
        self.at_error: deque[Refuses] = deque()
        self.init_errors: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.restores = self.lost = 0
        self._waiting: asyncio.Queue[_Invocation] = asyncio.Queue()
        self._current: _Invocation | None = None
        self._given: dict[str, _Invocation] = {}
        self._number = 0
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "RuntimeApi":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        listening = self._server.sockets[0]
        # Inherited by what is accepted: a reader that holds shall be felt soon.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self.host = "127.0.0.1:" + str(listening.getsockname()[1])
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.close()
        for connection in self._open:
            connection.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def invoke(
        self, event: dict[str, Any] | bytes, *, seconds: float | None = 900, headers: dict[str, str] | None = None
    ) -> Streamed:
        """The response to an event, as soon as its head or an error has arrived.

        The invocation may take so many seconds; without them nobody says when it ends.
        """
        self._number += 1
        told = {"Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:012345678912:function:test_function"}
        if seconds is not None:
            told["Lambda-Runtime-Deadline-Ms"] = str(int((time.time() + seconds) * 1000))
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        invocation = _Invocation(f"request-{self._number}", body, told | (headers or {}))
        self._waiting.put_nowait(invocation)
        async with asyncio.timeout(30):
            await invocation.decided.wait()
        return invocation.streamed

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._connection(reader, writer))
        self._open.add(connection)
        connection.add_done_callback(self._open.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = b""
        try:
            while True:
                exchange = _Exchange(reader, writer, kept)
                if (request := await exchange.request()) is None:
                    break
                if not await self._answered(exchange, request):
                    break
                kept = exchange.trailing
        except (OSError, h11.RemoteProtocolError):
            pass
        finally:
            writer.close()

    async def _answered(self, exchange: "_Exchange", request: h11.Request) -> bool:
        """Whether the connection is kept."""
        method, target = request.method.decode(), request.target.decode()
        match method, target.removeprefix(API).strip("/").split("/"):
            case "GET", ["invocation", "next"]:
                return await self._next(exchange)
            case "POST", ["invocation", request_id, ("response" | "error") as kind]:
                return await self._outcome(exchange, request, request_id, kind)
            case "POST", ["init", "error"]:
                self.init_errors.append(json.loads(await exchange.body()))
                return await exchange.answer(202)
            case "GET", ["restore", "next"]:
                self.restores += 1
                return await exchange.answer(200)
            case _, ["invocation", "next"]:
                return await self._refuse(exchange, 405, "MethodNotAllowed")
        return await self._refuse(exchange, 404, "NotFound")

    async def _next(self, exchange: "_Exchange") -> bool:
        fault = self.at_next.popleft() if self.at_next else None
        if isinstance(fault, Refuses):
            return await self._refuse(exchange, fault.status, "Asked.For")
        if fault == Drops(0):
            return False
        if self.at_most > 1:
            return await self._one_of_several(exchange)
        if self._current is not None and self._current.state == "InvocationResponse":
            return await self._refuse(exchange, 403, "InvalidStateTransition")
        if self._current is None or self._current.state != "Running":
            self._current = await self._waiting.get()
        return await self._give(exchange, self._current, fault)

    @property
    def running(self) -> int:
        """Invocations that were given and are not answered, where there may be several; of a lost response nobody hears
        again."""
        return sum(given.state != "RuntimeResponseSent" for given in self._given.values())

    async def _one_of_several(self, exchange: "_Exchange") -> bool:
        if self.asking + self.running >= self.at_most:
            return await self._refuse(exchange, 403, "InvalidStateTransition")
        self.asking += 1
        left, given = asyncio.ensure_future(exchange.left()), asyncio.ensure_future(self._waiting.get())
        try:
            await asyncio.wait({left, given}, return_when=asyncio.FIRST_COMPLETED)
            if not given.done():
                return False
            self._given[given.result().request_id] = given.result()
        finally:
            self.asking -= 1
            left.cancel()
            given.cancel()
        return await self._give(exchange, given.result(), None)

    async def _give(self, exchange: "_Exchange", invocation: _Invocation, fault: Fault | None) -> bool:
        told = {"Lambda-Runtime-Aws-Request-Id": invocation.request_id, **invocation.headers}
        head = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in told.items())
        head = self.delivery.interim + b"HTTP/1.1 200 OK\r\n" + head + self.delivery.more_headers
        answer = head + self.delivery.framing(invocation.event)
        if isinstance(fault, Drops):
            await exchange.write(answer[: fault.after])
            return False
        size = self.delivery.piece_bytes or len(answer)
        for at in range(0, len(answer), size):
            await exchange.write(answer[at : at + size])
            await asyncio.sleep(self.delivery.pause_seconds)
        return not self.delivery.closes

    async def _outcome(self, exchange: "_Exchange", request: h11.Request, request_id: str, kind: str) -> bool:
        headers = {n.decode(): v.decode("latin-1") for n, v in request.headers}
        invocation = self._given.get(request_id) if self.at_most > 1 else self._current
        if invocation is None or invocation.request_id != request_id:
            return await self._refuse(exchange, 400, "InvalidRequestID")
        if invocation.state != "Running":
            return await self._refuse(exchange, 403, "InvalidStateTransition")
        invocation.streamed.headers = headers
        invocation.state = "InvocationResponse"
        if kind == "error":
            invocation.settle(error=json.loads(await exchange.body()))
            if self.at_error:
                invocation.state = "RuntimeResponseSent"
                return await self._refuse(exchange, self.at_error.popleft().status, "Asked.For")
        elif headers.get("lambda-runtime-function-response-mode") != "streaming":
            return await self._refuse(exchange, 400, "InvalidFunctionResponseMode")
        else:
            try:
                refusal = await self._response(exchange, invocation)
            except (OSError, h11.RemoteProtocolError):
                self.lost += 1
                raise
            finally:
                invocation.end()
            if refusal is not None:
                invocation.state = "RuntimeResponseSent"
                return await self._refuse(exchange, *refusal)
        invocation.state = "RuntimeResponseSent"
        return await exchange.answer(202)

    async def _response(self, exchange: "_Exchange", invocation: _Invocation) -> tuple[int, str] | None:
        """How a response is refused; None when it has been taken."""
        fault = self.at_response.popleft() if self.at_response else None
        size = number = 0
        while True:
            if fault is not None and number == fault.after:
                match fault:
                    case Drops():
                        exchange.abort()
                        raise ConnectionResetError
                    case Holds(until=until):
                        await until.wait()
                    case Refuses(status=status):
                        exchange.refusal = fault
                        return status, "Asked.For"
            chunk = await exchange.chunk()
            if isinstance(chunk, dict):
                if sum(len(name) + len(value) + 4 for name, value in chunk.items()) > MAX_TRAILER_BYTES:
                    exchange.abort()
                    raise ConnectionResetError
                invocation.streamed.trailers = chunk
                return None
            number, size = number + 1, size + len(chunk)
            if size > MAX_RESPONSE_BYTES:
                return 413, "RequestEntityTooLarge"
            invocation.take(chunk)

    async def _refuse(self, exchange: "_Exchange", status: int, error_type: str) -> bool:
        self.refused.append(f"{status} {error_type}")
        return await exchange.answer(status, {"errorMessage": "It is not allowed.", "errorType": error_type})


class _Exchange:
    """A request, read by h11, and its answer, which is written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytes) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
        self._trailers: list[dict[str, str]] = []
        self.refusal: Refuses | None = None
        if kept:
            self._http.receive_data(kept)

    @property
    def trailing(self) -> bytes:
        """What has been read of the next request."""
        return self._http.trailing_data[0]

    async def request(self) -> h11.Request | None:
        """The head of the request; None when there is none any more."""
        event = await self._event()
        return event if isinstance(event, h11.Request) else None

    async def chunk(self) -> bytes | dict[str, str]:
        """The next chunk of the body, whole; at its end the trailers."""
        found = b""
        while not self._trailers:
            event = await self._event()
            if isinstance(event, h11.EndOfMessage):
                self._trailers.append({name.decode(): value.decode("latin-1") for name, value in event.headers})
                break
            assert isinstance(event, h11.Data)
            found += event.data
            if event.chunk_end:
                break
        return found or self._trailers[0]

    async def body(self) -> bytes:
        """What is left of the body."""
        return b"".join([bytes(part) async for part in self._parts()])

    async def _parts(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def answer(self, status: int, document: dict[str, str] | None = None) -> bool:
        """Answers as AWS does, and reads what is left of the request: the connection is kept."""
        body = json.dumps(document or {"status": "OK"}).encode() + b"\n"
        await self.write(b"HTTP/1.1 %d Whatever\r\nContent-Type: application/json\r\n" % status + as_aws(body))
        if self._http.their_state is not h11.SEND_BODY:
            pass
        elif self.refusal is None or self.refusal.reads_on:
            await self.body()
        elif self.refusal.closes is not None:
            await self.refusal.closes.wait()
        else:
            # As Go's server does: who closed at once would take the answer back with it.
            self._writer.write_eof()
            await asyncio.sleep(LINGER_SECONDS)
        return self._http.their_state is h11.DONE

    async def left(self) -> None:
        """Returns once the client has closed the connection."""
        assert await self._reader.read(1) == b"", "nothing may follow before there is an answer"

    async def write(self, data: bytes) -> None:
        """Writes, and waits until it is on its way."""
        self._writer.write(data)
        await self._writer.drain()

    def abort(self) -> None:
        """Resets the connection."""
        self._writer.transport.abort()

    async def _event(self) -> h11.Event:
        while not isinstance(event := self._http.next_event(), h11.Event):
            self._http.receive_data(await self._reader.read(65536))
        return event


_BAD_GATEWAY = {"statusCode": 502}


def _head(prelude: bytes) -> dict[str, Any]:
    """What a client sees of a response that begins so: 502 when it is not what API Gateway understands."""
    try:
        head = json.loads(prelude)
        shapes: dict[str, type] = {"statusCode": int, "headers": dict, "multiValueHeaders": dict, "cookies": list}
        right = 100 <= head["statusCode"] <= 599 and all(isinstance(head[name], shapes[name]) for name in head)
        right = right and all(isinstance(value, str) for value in head.get("headers", {}).values())
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    return head if right else _BAD_GATEWAY
