"""Memory of one process over thousands of turns: it has to stay where it is once everything is loaded.

The store and the provider are canned. The argument says how many turns.
"""

import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench.first_delta import SHORT, Server, canned_servers
from tests.conftest import running_stack

TURNS, SIDE_BY_SIDE, LOOKS = 5000, 8, 10


def main(turns: int = TURNS) -> None:
    """Prints the memory after each tenth of the turns."""
    with ExitStack() as until_the_end:
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory()))
        stack = until_the_end.enter_context(running_stack(folder))
        servers, _ = canned_servers(stack, folder, until_the_end)
        asyncio.run(_measured(servers[0], turns))


async def _measured(product: Server, turns: int) -> None:
    print(f"\nA long life: MiB of one process after so many turns, {SIDE_BY_SIDE} at a time")
    connections = [product.connection() for _ in range(SIDE_BY_SIDE)]
    request = product.request(SHORT)
    (await connections[0].ask(request)).end_of(b"event: done")
    found = [product.memory_mib]
    print(f"{1:8}{found[-1]:8.1f}")
    for look in range(1, LOOKS + 1):
        for _ in range(turns // LOOKS // SIDE_BY_SIDE):
            answers = await asyncio.gather(*(connection.ask(request) for connection in connections))
            for answer in answers:
                answer.end_of(b"event: done")
        found.append(product.memory_mib)
        print(f"{look * turns // LOOKS:8}{found[-1]:8.1f}", flush=True)
    print(f"from a tenth of them to all: {found[-1] - found[1]:+.1f} MiB")
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
