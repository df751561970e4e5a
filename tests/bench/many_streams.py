"""One process that holds many streams: whether each arrives whole, what it takes, and how evenly the deltas come.

The store and the provider are canned. The product and a bare relay are measured in turn. Arguments: how many streams,
deltas a second of each, and for how many seconds.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.first_delta import Server, canned_servers
from tests.bench.raw_client import Answer, Connection
from tests.conftest import running_stack

STREAMS, PER_SECOND, SECONDS = 1000, 20, 60
STARTS_PER_SECOND = 20
"""What one core takes besides the streams that run; all at once is another bench (`first_delta`)."""
MAX_GAP_SAMPLES = 200_000


def main(streams: int = STREAMS, per_second: int = PER_SECOND, seconds: int = SECONDS) -> None:
    """Prints a line for each server."""
    with ExitStack() as until_the_end:
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory()))
        stack = until_the_end.enter_context(running_stack(folder))
        servers, _ = canned_servers(stack, folder, until_the_end)
        asyncio.run(_measured([one for one in servers if one.name != "litellm"], streams, per_second, seconds))


async def _measured(servers: list[Server], streams: int, per_second: int, seconds: int) -> None:
    print(f"\nMany streams: {streams} at once, {per_second} deltas a second each, for {seconds} s")
    print(
        f"{'':12}{'whole':>8}{'took s':>9}{'CPU of a core':>15}{'MiB':>7}{'gap p50 ms':>12}{'p99 ms':>9}{'late %':>8}"
    )
    words = per_second * seconds
    script = f"[[words:{words}]][[delay:{1000 // per_second}]][[first-token:0]]"
    for server in servers:
        # Recorded first: what a turn asks that takes some seconds.
        await _asked(server, "[[words:20]][[delay:200]][[first-token:0]]", 1)
        before, began = server.cpu_seconds, time.perf_counter()
        answers, memory = await _watched(server, script, streams)
        took = time.perf_counter() - began
        whole = sum(_is_whole(answer, words) for answer in answers)
        gaps = sorted(
            gap * 1000 for answer in answers for gap in answer.gaps[:: len(answers) * words // MAX_GAP_SAMPLES + 1]
        )
        share = (server.cpu_seconds - before) / took
        p99 = gaps[int(len(gaps) * 0.99)]
        late = 100 * sum(gap > 2 * 1000 / per_second for gap in gaps) / len(gaps)
        print(
            f"{server.name:12}{whole:8}{took:9.1f}{share:15.2f}{memory:7.0f}{statistics.median(gaps):12.1f}{p99:9.1f}{late:8.1f}"
        )


async def _watched(server: Server, script: str, streams: int) -> tuple[list[Answer], float]:
    """The answers, and the most memory that the server had meanwhile."""
    asking = asyncio.ensure_future(_asked(server, script, streams))
    most = 0.0
    while not asking.done():
        most = max(most, server.memory_mib)
        await asyncio.wait({asking}, timeout=0.5)
    return await asking, most


async def _asked(server: Server, script: str, streams: int) -> list[Answer]:
    connections = [server.connection() for _ in range(streams)]
    request = server.request(script)
    try:
        return await asyncio.gather(
            *(
                _patiently(connection, request, number / STARTS_PER_SECOND)
                for number, connection in enumerate(connections)
            )
        )
    finally:
        for connection in connections:
            connection.close()


async def _patiently(connection: Connection, request: bytes, seconds: float) -> Answer:
    await asyncio.sleep(seconds)
    try:
        return await connection.ask(request)
    except (OSError, asyncio.IncompleteReadError):
        return Answer(0)


def _is_whole(answer: Answer, words: int) -> bool:
    is_over = b"event: done" in answer.body or b"event: response.completed" in answer.body
    deltas = answer.body.count(b"event: delta\n") or answer.body.count(b"event: response.output_text.delta\n")
    return answer.status == 200 and is_over and deltas == words


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
