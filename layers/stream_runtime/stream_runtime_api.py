"""A client of the Lambda Runtime API: what it answers, however it is framed, and one invocation after the other.

Whoever calls is told of a lost connection by OSError, and by RuntimeApiFailed that this process gets no more.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import NamedTuple

import h11

API = "/2018-06-01/runtime"
REQUEST_ID = "lambda-runtime-aws-request-id"
TRACE_ID = "lambda-runtime-trace-id"

of_several: ContextVar["Answer | None"] = ContextVar("of_several", default=None)
"""The invocation that is being served, where several are at once; None where it is the only one."""

PAUSES_SECONDS = (0, 0.1, 0.2, 0.4, 0.8)
"""Before asking again for an invocation. The first time at once: the connection may just have been closed meanwhile."""

READ_BYTES = 256 * 1024
HEAD_MAX_BYTES = 1024 * 1024
TOLD_CHARACTERS = 4096
"""Of what the Runtime API says when it refuses."""


class RuntimeApiFailed(Exception):
    """There are no more invocations for this process: it ends, and Lambda starts another."""


class Answer(NamedTuple):
    """What the Runtime API answered; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __str__(self) -> str:
        """For the log, when it is a refusal: an invocation has what is nobody's business."""
        return f"{self.status} {self.body[:TOLD_CHARACTERS].decode(errors='replace').strip()}"


class Connection:
    """A connection to the Runtime API, for one exchange after the other; h11 reads every framing that HTTP/1.1 has.

    Every method raises OSError when the connection is lost.
    """

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)

    @classmethod
    async def to(cls, host: str) -> "Connection":
        """A new connection to `address:port`."""
        name, _, port = host.rpartition(":")
        return cls(host, *await asyncio.open_connection(name, int(port)))

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """The answer to a whole request."""
        head = self.request(method, path, {**headers, "Content-Length": str(len(body))} if body else headers)
        await self.write(head, h11.Data(data=body), h11.EndOfMessage())
        return await self.answer()

    def request(self, method: str, path: str, headers: Mapping[str, str]) -> h11.Request:
        """The head of a request, to be written."""
        return h11.Request(method=method, target=API + path, headers=[("Host", self._host), *headers.items()])

    async def write(self, *events: h11.Event) -> None:
        """Sends parts of a request: each is written, and waited for, before the next."""
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()

    async def answer(self) -> Answer:
        """The final answer to the request, which may come before the request's end."""
        head, body = None, bytearray()
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise ConnectionError(f"its answer cannot be read: {error}") from error
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(READ_BYTES))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
                return Answer(head.status_code, headers, bytes(body))
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionError("it closed the connection")

    def renew(self) -> bool:
        """Whether the connection is good for another exchange."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE or self._reader.at_eof():
            return False
        self._http.start_next_cycle()
        return True

    def abort(self) -> None:
        """Closes the connection at once; who waits for it gets an OSError."""
        self._writer.transport.abort()


class Invocations:
    """Takes one invocation after the other, over a connection that is kept for as long as the Runtime API keeps it."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._connection: Connection | None = None

    async def next(self) -> Answer:
        """The next invocation, whenever it comes: the process may be frozen meanwhile, so nothing here has a timeout.

        Raises RuntimeApiFailed when the Runtime API says that it is over, or gave none six times in a row.
        """
        for pause in (*PAUSES_SECONDS, None):
            try:
                return await self._ask()
            except OSError as error:
                self.leave()
                if pause is None:
                    raise RuntimeApiFailed(f"the runtime API gives no invocations: {error}") from error
                log(f"the runtime API gave no invocation: {error}")
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last time returns or raises")

    async def _ask(self) -> Answer:
        if self._connection is None:
            self._connection = await Connection.to(self._host)
        answer = await self._connection.ask("GET", "/invocation/next", {})
        if answer.status != 200:
            raise_if_over(answer)
            raise ConnectionError(f"it answered {answer}")
        if REQUEST_ID not in answer.headers:
            raise ConnectionError(f"its {len(answer.body)} bytes have no {REQUEST_ID}")
        if not self._connection.renew():
            self.leave()
        return answer

    def leave(self) -> None:
        """Closes the connection, if there is one."""
        if self._connection is not None:
            self._connection.abort()
        self._connection = None


async def exchange(host: str, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
    """One exchange on a connection of its own; raises OSError when it is lost."""
    connection = await Connection.to(host)
    try:
        return await connection.ask(method, path, {**headers, "Connection": "close"}, body)
    finally:
        connection.abort()


def raise_if_over(answer: Answer) -> None:
    """AWS: after a 500 the runtime should exit promptly."""
    if answer.status == 500:
        raise RuntimeApiFailed(f"the runtime API is over: {answer}")


def log(text: str) -> None:
    """A line in the function's log; of one of several invocations it says which, as JSON."""
    invocation = of_several.get()
    if invocation is not None:
        at, request_id = datetime.now(UTC).isoformat(timespec="milliseconds"), invocation.headers[REQUEST_ID]
        text = json.dumps({"level": "ERROR", "message": text, "timestamp": at, "aws_request_id": request_id})
    print(text, file=sys.stderr, flush=True)
