"""Opens ports of this machine to containers: what listens at the loopback interface is reached at another address, too.

python -m minichat.local.doors --at 172.17.0.1 4566 8080
"""

import argparse
import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable

CHUNK_BYTES = 65_536


def main() -> None:
    """Serves until the process is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--at", required=True, help="an address of this machine")
    parser.add_argument("ports", nargs="+", type=int, help="the same ones there and at the loopback interface")
    options = parser.parse_args()
    asyncio.run(_serve(options.at, options.ports))


async def _serve(host: str, ports: list[int]) -> None:
    for port in ports:
        try:
            await asyncio.start_server(_door(port), host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            print(f"{host}:{port} needs no door: what listens there is open already", flush=True)
    print("open", flush=True)
    await asyncio.Event().wait()


def _door(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_carry(reader, inner_writer), _carry(inner_reader, writer))
        inner_writer.close()
        writer.close()

    return enter


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries bytes until one side has no more; that one has said its last word, and may still be answered."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


if __name__ == "__main__":
    main()
