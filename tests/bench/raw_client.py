"""An HTTP client that does as little as a client can, so that its own work is not taken for a server's."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True)
class Answer:
    """An answer, and when it came: seconds of the performance counter."""

    status: int
    body: bytes = b""
    began: float = 0.0
    first_delta: float = 0.0
    ended: float = 0.0
    gaps: list[float] = field(default_factory=list)
    """Seconds between one piece with a delta and the next."""

    def end_of(self, last: bytes) -> None:
        """Asserts that the answer came, with its last event."""
        assert self.status == 200, self
        assert last in self.body, self.body[-500:]


async def ask(url: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
    """The whole answer to one request on a connection of its own; `headers` begin with `:method` and `:path`."""
    told = dict(headers)
    parts = urlsplit(url)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers if name[0] != ":" and name != "connection")
    request = f"{told[':method']} {told[':path']} HTTP/1.1\r\n{lines}\r\n".encode() + body
    connection = Connection(parts.hostname or "", parts.port or 80)
    try:
        return await connection.ask(request)
    finally:
        connection.close()


class Connection:
    """One connection, kept between requests."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens it, if it is not."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        return self._streams

    async def ask(self, request: bytes) -> Answer:
        """Sends bytes as they are, and reads the answer to its end."""
        reader, writer = await self.open()
        answer = Answer(0, began=time.perf_counter())
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        answer.status = int(head.split(b" ", 2)[1])
        if length := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
            answer.body = await reader.readexactly(int(length[1]))
        elif re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            answer.body = await _chunked(reader, answer)
        answer.ended = time.perf_counter()
        return answer

    def close(self) -> None:
        """Closes it, if it was ever open."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _chunked(reader: asyncio.StreamReader, answer: Answer) -> bytes:
    parts = []
    before = 0.0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        data = (await reader.readexactly(size + 2))[:-2]
        parts.append(data)
        if b"delta" in data:
            now = time.perf_counter()
            if before:
                answer.gaps.append(now - before)
            else:
                answer.first_delta = now
            before = now
    await reader.readexactly(2)
    return b"".join(parts)


def request_of(method: str, path: str, host: str, body: bytes, token: str = "") -> bytes:
    """The bytes of a request with a JSON body."""
    authorization = f"authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{authorization}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
