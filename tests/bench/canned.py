"""A store and a provider that cost next to nothing, so that a benchmark sees the product's own work.

Both answer from recordings: what nobody has asked yet is asked of the real engine or of the scripted provider, and the
same question gets the same answer from then on. Questions are the same that differ in ids, times and texts alone. So a
turn that begins in the recorded chat finds it idle, whatever it writes is accepted, and who looks at it while it runs
finds it.
"""

import argparse
import asyncio
import json
import re
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11

from tests.bench.raw_client import ask

MAX_LAST = 20
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_VALUE = re.compile(rb'("(?:S|B)":")([A-Z#*]*)(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(rb'("N":)"[^"]*"')
_TURN = re.compile(rb'"TURN#([0-9a-f-]{36})"')
_PAUSES = re.compile(rb"\[\[(words|delay|first-token|whole):(\d+)\]\]")


@dataclass
class Recordings:
    """What was asked, and what the answer was."""

    upstream: str
    delay_seconds: float = 0
    asked: int = 0
    last: list[tuple[str, str]] = field(default_factory=list)
    """What was asked, known or not, since somebody looked: operations and bodies."""
    known: dict[bytes, asyncio.Future[bytes]] = field(default_factory=dict)

    async def answer(self, question: bytes, ask_upstream: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """The recorded answer; that of upstream, and recorded, if it is the first time."""
        if question not in self.known:
            self.asked += 1
            self.known[question] = asyncio.ensure_future(ask_upstream())
        return await asyncio.shield(self.known[question])


async def _served(respond: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Requests of one connection, one after the other, until it is closed."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            await respond(head, body, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def store(recordings: Recordings) -> Any:
    """DynamoDB's answers. `POST /delay/MS` has them take so long from then on; `GET /asked` tells what was new, and
    `GET /last` what was asked since it was asked last."""

    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST /delay/"):
            recordings.delay_seconds = int(head.split(b" ")[1].rpartition(b"/")[2]) / 1000
            writer.write(_whole(b"{}"))
            return
        if head.startswith(b"GET /last"):
            writer.write(_whole(json.dumps(recordings.last).encode()))
            recordings.last.clear()
            return
        if head.startswith(b"GET /asked"):
            writer.write(_whole(str(recordings.asked).encode()))
            return
        target = re.search(rb"(?i)\r\nx-amz-target: *(\S+)", head)
        assert target is not None, head
        is_written = target[1].endswith(
            (b".TransactWriteItems", b".PutItem")
        )  # their answers tell nothing of the items
        shape = (
            target[1]
            if is_written
            else target[1] + _NUMBER.sub(rb'\1"0"', _VALUE.sub(rb'\1\2"', _UUID.sub(b"*", body)))
        )

        async def engine() -> bytes:
            answer = await ask(recordings.upstream, _forwarded(head), body)
            return answer.body if answer.status == 200 else b""

        if len(recordings.last) < MAX_LAST:
            recordings.last.append((target[1].decode().partition(".")[2], body.decode()))
        turn = _TURN.search(body)
        if recordings.delay_seconds:
            await asyncio.sleep(recordings.delay_seconds)
        answer = await recordings.answer(shape, engine)
        if turn:
            answer = _TURN.sub(turn[0], answer)
        writer.write(_whole(answer, 200 if answer else 500, (("x-amz-crc32", str(zlib.crc32(answer))),)))

    return respond


def provider(recordings: Recordings) -> Any:
    """The scripted provider's stream, event by event as its script has it, rendered once."""

    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if not head.startswith(b"POST /v1/responses "):  # LiteLLM asks for the list of models
            writer.write(_whole(b"{}", 404))
            return
        # The newest message is the last of a prompt.
        said = {name.decode(): int(number) for name, number in _PAUSES.findall(body)}
        words, delay, first = said.get("words", 20), said.get("delay", 0) / 1000, said.get("first-token", 0) / 1000

        async def scripted() -> bytes:
            plain = _PAUSES.sub(lambda found: found[0] if found[1] == b"words" else b"[[%s:0]]" % found[1], body)
            return (await ask(recordings.upstream, _forwarded(head, len(plain)), plain)).body

        events = (await recordings.answer(b"%d" % words, scripted)).split(b"\n\n")[:-1]
        chunks = [_chunk(event + b"\n\n") for event in events]
        opening = next(number for number, event in enumerate(events) if b"delta" in event)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"".join(chunks[:opening]))
        if first:
            await asyncio.sleep(first)
        if not delay:
            # As a proxy between has it that joins what comes together; providers send a chunk for each event.
            whole = [_chunk(b"\n\n".join([*events[opening:], b""]))] if said.get("whole") else chunks[opening:]
            writer.write(b"".join(whole) + _chunk(b""))
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, chunk in enumerate(chunks[opening:]):
            writer.write(chunk)
            await asyncio.sleep(max(began + (number + 1) * delay - loop.time(), 0))
        writer.write(_chunk(b""))

    return respond


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _forwarded(head: bytes, length: int | None = None) -> list[tuple[str, str]]:
    """Method, path and headers of a request, as `raw_client.ask` takes them."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    headers = [(name.decode(), value.decode()) for name, value in request.headers]
    if length is not None:
        headers = [(name, str(length) if name == "content-length" else value) for name, value in headers]
    return [(":method", request.method.decode()), (":path", request.target.decode()), *headers]


def _whole(body: bytes, status: int = 200, more: tuple[tuple[str, str], ...] = ()) -> bytes:
    headers = {"content-type": "application/x-amz-json-1.0", "content-length": str(len(body)), **dict(more)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Canned\r\n{lines}\r\n".encode() + body


async def _serve(options: argparse.Namespace) -> None:
    servers = []
    for port, respond in (
        (options.store_port, store(Recordings(options.engine))),
        (options.provider_port, provider(Recordings(options.provider))),
    ):
        servers.append(
            await asyncio.start_server(
                partial(_served, respond),
                "127.0.0.1",
                port,
                backlog=4096,
            )
        )
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--store-port", type=int, required=True)
    parser.add_argument("--provider-port", type=int, required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--provider", required=True)
    asyncio.run(_serve(parser.parse_args()))
