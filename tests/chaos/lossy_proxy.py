"""An engine's front door that loses answers: the request has its effect, and nobody hears of it.

    python -m tests.chaos.lossy_proxy --port P --engine PORT --percent 1 --seed S

One loss in ten is silence until the client gives up; with the others the connection breaks. Each is a line of output.
"""

import argparse
import asyncio
import random
import re
from contextlib import suppress

SILENT_SHARE = 0.1
_LENGTH = re.compile(rb"^content-length:\s*(\d+)", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding:.*chunked", re.IGNORECASE | re.MULTILINE)
_OPERATION = re.compile(rb"^x-amz-target:\s*\S+\.(\w+)", re.IGNORECASE | re.MULTILINE)


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--engine", type=int, required=True, help="the port that is stood in front of")
    parser.add_argument("--percent", type=float, required=True)
    parser.add_argument("--seed", required=True)
    options = parser.parse_args()
    asyncio.run(LossyProxy(options.engine, options.percent, options.seed).serve(options.port))


class LossyProxy:
    """Passes requests on one by one, and most of the answers."""

    def __init__(self, engine: int, percent: float, seed: str) -> None:
        self._engine = engine
        self._percent = percent
        self._chance = random.Random(seed)

    async def serve(self, port: int) -> None:
        """Listens on a port of the loopback interface."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_writer = None
        try:
            engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", self._engine)
            while request := await _message(reader):
                engine_writer.write(request)
                answer = await _message(engine_reader)
                if self._chance.random() * 100 < self._percent:
                    await self._lose(request, reader)
                    return
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in filter(None, (writer, engine_writer)):
                one.close()

    async def _lose(self, request: bytes, reader: asyncio.StreamReader) -> None:
        silent = self._chance.random() < SILENT_SHARE
        operation = _OPERATION.search(request)
        print("lost", operation[1].decode() if operation else "?", "silently" if silent else "broken", flush=True)
        if silent:
            await reader.read()  # until the client has had enough


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A whole request or answer; empty at the end of the connection."""
    head = b""
    with suppress(asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
    if length := _LENGTH.search(head):
        return head + await reader.readexactly(int(length[1]))
    body, size = b"", 1 if _CHUNKED.search(head) else 0
    while size:
        line = await reader.readline()
        size = int(line, 16)
        body += line + await reader.readexactly(size + 2)
    return head + body


if __name__ == "__main__":
    main()
