"""CPU and time of the buffered operations, beside a bare FastAPI handler that makes the same calls by the same client.

The store is canned. Both servers are asked in turn, block by block.
"""

import asyncio
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from minichat.local.process import Child, free_port
from tests.bench.first_delta import Server, canned_servers
from tests.bench.raw_client import request_of
from tests.conftest import of_servers, running_stack
from tests.support.http.client import StartedStack, User

BLOCKS, A_BLOCK = 12, 25


def main() -> None:
    """Prints a line for each operation."""
    with ExitStack() as until_the_end:
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory()))
        stack = until_the_end.enter_context(running_stack(folder))
        servers, _ = canned_servers(stack, folder, until_the_end)
        with User(stack.base_url, servers[0].token) as user:
            chat_id = user.new_chat()
            turn = f"/chats/{chat_id}/turns/{user.send(chat_id, 'Hello').request_id}"
        base = servers[0].url.partition("/chats/")[0]
        operations = [
            ("get turn", "GET", f"{base}{turn}", b""),
            ("list messages", "GET", f"{base}/chats/{chat_id}/messages?limit=20", b""),
            ("create chat", "POST", f"{base}/chats", b"{}"),
            ("delete turn", "DELETE", f"{base}{turn}", b""),
        ]
        store_url = servers[0].store_url
        bare = _bare(stack, store_url, folder, until_the_end)
        print(f"\nBuffered operations: milliseconds, {BLOCKS * A_BLOCK} each, store 0 ms")
        print(f"{'':16}{'calls':>6}{'CPU':>8}{'bare':>8}{'ratio':>8}{'p50':>8}{'bare':>8}{'ratio':>8}")
        for name, method, url, body in operations:
            asyncio.run(_measured(name, (method, url, body), servers[0], bare, store_url))


def _bare(stack: StartedStack, store_url: str, folder: Path, until_the_end: ExitStack) -> Server:
    port = free_port()
    environment = of_servers(stack.about, stack.state) | {"MINICHAT_STORE__ENDPOINT": store_url}
    command = [sys.executable, "-m", "tests.bench.bare_calls", "--port", str(port)]
    child = Child("the calls", command, folder / "logs", environment)
    until_the_end.callback(child.stop)
    child.wait_until_it_answers(f"http://127.0.0.1:{port}/health")
    return Server("bare", f"http://127.0.0.1:{port}/do", "", lambda _: {}, child.pid)


async def _measured(name: str, asked: tuple[str, str, bytes], product: Server, bare: Server, store_url: str) -> None:
    method, url, body = asked
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    requests = [
        request_of(method, path, parts.netloc, body, product.token),
        request_of(method, "/do", urlsplit(bare.url).netloc, b""),
    ]
    connections = [product.connection(), bare.connection()]
    for _ in range(3):
        first = await connections[0].ask(requests[0])
        assert first.status < 300, (name, first)
    _told(f"{store_url}/last")
    await connections[0].ask(requests[0])
    calls = _told(f"{store_url}/last")
    _told(bare.url.replace("/do", "/plan"), "PUT", calls)
    times, cpu = [list[float](), list[float]()], [0.0, 0.0]
    for block in range(BLOCKS + 2):
        for which, server in enumerate((product, bare)):
            before = server.cpu_seconds
            answers = [await connections[which].ask(requests[which]) for _ in range(A_BLOCK)]
            assert all(answer.status < 300 for answer in answers)
            if block >= 2:
                cpu[which] += (server.cpu_seconds - before) * 1000
                times[which] += [(answer.ended - answer.began) * 1000 for answer in answers]
    for connection in connections:
        connection.close()
    ours, theirs = (one / (BLOCKS * A_BLOCK) for one in cpu)
    p50, bare_p50 = map(statistics.median, times)
    row = f"{name:16}{len(json.loads(calls)):6}{ours:8.2f}{theirs:8.2f}{ours / theirs:8.2f}"
    print(f"{row}{p50:8.2f}{bare_p50:8.2f}{p50 / bare_p50:8.2f}", flush=True)


def _told(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    request = Request(url, data=body, method=method, headers={"content-type": "application/json"})
    with urlopen(request) as response:
        told: bytes = response.read()
    return told


if __name__ == "__main__":
    main()
