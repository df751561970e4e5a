"""What the product adds to the provider's own stream: time to the first delta, CPU, and many streams at once.

The product's server works against a store that answers at once, or after some milliseconds (`canned`); a bare relay,
and LiteLLM's proxy where it is installed, are asked in turn with it, by the same client, for the same stream.
"""

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from minichat.local.process import Child, free_port
from tests.bench import peers
from tests.bench.raw_client import Answer, Connection, request_of
from tests.conftest import of_servers, running_stack
from tests.support.http.client import StartedStack

ROUNDS, WARM_UP, CROWD, CROWD_ROUNDS = 60, 10, 50, 4
SHORT = "[[words:20]][[delay:0]][[first-token:0]]"
WHOLE = f"{SHORT}[[whole:1]]"
WAITS = "[[words:20]][[delay:0]][[first-token:300]]"


@dataclass
class Server:
    """One that is measured: where it is, what is asked of it, and its process."""

    name: str
    url: str
    token: str
    body: Callable[[str], dict[str, object]]
    pid: int
    store_url: str = ""

    def request(self, script: str) -> bytes:
        """The bytes that ask for this stream."""
        parts = urlsplit(self.url)
        return request_of("POST", parts.path, parts.netloc, json.dumps(self.body(script)).encode(), self.token)

    def connection(self) -> Connection:
        """A connection to it."""
        parts = urlsplit(self.url)
        return Connection(parts.hostname or "", parts.port or 0)

    @property
    def cpu_seconds(self) -> float:
        """CPU that its process and those that it started have used."""
        return sum(_cpu_of(pid) for pid in _with_children(self.pid))

    @property
    def memory_mib(self) -> float:
        """Memory that its processes hold now."""
        return sum(_resident(pid) for pid in _with_children(self.pid))


def main(*arguments: str) -> None:
    """Prints the table; the arguments are for `minichat dev`, such as an engine."""
    with ExitStack() as until_the_end:
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory()))
        stack = until_the_end.enter_context(running_stack(folder, *arguments))
        servers, delay = canned_servers(stack, folder, until_the_end)
        asyncio.run(_measured(servers, delay))


def canned_servers(
    stack: StartedStack, folder: Path, until_the_end: ExitStack
) -> tuple[list[Server], Callable[[int], int]]:
    """The servers to measure, the product first, and what has the store take so many milliseconds from then on: it
    returns how many questions were new to the store until now."""
    store, provider = free_port(), free_port()
    command = [sys.executable, "-m", "tests.bench.canned", "--store-port", str(store), "--provider-port", str(provider)]
    command += ["--engine", str(stack.about["engine_url"]), "--provider", str(stack.about["provider_url"])]
    canned = Child("the canned", command, folder / "logs")
    until_the_end.callback(canned.stop)
    canned.wait_until_it_answers(f"http://127.0.0.1:{store}/asked")

    def delay(milliseconds: int) -> int:
        with urlopen(Request(f"http://127.0.0.1:{store}/delay/{milliseconds}", method="POST")):
            pass
        with urlopen(f"http://127.0.0.1:{store}/asked") as told:
            return int(told.read())

    provider_url = f"http://127.0.0.1:{provider}"
    product = _product(stack, f"http://127.0.0.1:{store}")
    servers = []
    for name, start in (("product", product), *peers.known()):
        child, url, token, body = start(provider_url, folder / "logs")
        until_the_end.callback(child.stop)
        servers.append(Server(name, url, token, body, child.pid, f"http://127.0.0.1:{store}"))
    return servers, delay


def _product(stack: StartedStack, store_url: str) -> Callable[[str, Path], peers.Started]:
    """What starts the product's server, which asks this store."""

    def start(provider_url: str, logs: Path) -> peers.Started:
        port = free_port()
        environment = of_servers(stack.about, stack.state) | {
            "MINICHAT_STORE__ENDPOINT": store_url,
            "MINICHAT_PROVIDERS": json.dumps({"openai": {"base_url": provider_url, "allow_insecure": True}}),
        }
        server = Child(
            "the product", [sys.executable, "-m", "tests.bench.product", "--port", str(port)], logs, environment
        )
        server.wait_until_it_answers(f"http://127.0.0.1:{port}/mini-chat/v1/health")
        with stack.user() as user:
            url = f"http://127.0.0.1:{port}/mini-chat/v1/chats/{user.new_chat()}/messages:stream"
            token = user.http.headers["authorization"].removeprefix("Bearer ")
        return server, url, token, lambda script: {"content": script}

    return start


async def _measured(servers: list[Server], delay: Callable[[int], int]) -> None:
    await _rounds(servers, SHORT, WARM_UP)
    recorded = delay(0)
    for milliseconds, script in ((0, SHORT), (0, WHOLE), (3, SHORT), (5, SHORT), (8, SHORT), (5, WAITS)):
        delay(milliseconds)
        found = await _rounds(servers, script, ROUNDS // 3 if script is WAITS else ROUNDS)
        _print(f"{script}, store {milliseconds} ms", servers, found, milliseconds)
    delay(0)
    await _crowds(servers, 1)
    _print(f"{CROWD} at once, store 0 ms", servers, await _crowds(servers, CROWD_ROUNDS), 0)
    # Else it was the engine's work that was measured.
    assert delay(0) == recorded, "the recordings did not have an answer"


@dataclass
class Found:
    """Milliseconds of each stream of one server."""

    first: list[float]
    cpu: list[float]
    cpu_before: list[float]


async def _rounds(servers: list[Server], script: str, rounds: int) -> list[Found]:
    """One stream at a time, the servers in turn."""
    found = [Found([], [], []) for _ in servers]
    connections = [server.connection() for server in servers]
    for _ in range(rounds):
        for server, connection, mine in zip(servers, connections, found, strict=True):
            request, before = server.request(script), server.cpu_seconds
            asked = asyncio.ensure_future(connection.ask(request))
            if script is WAITS:
                await asyncio.sleep(0.25)
                mine.cpu_before.append((server.cpu_seconds - before) * 1000)
            answer = _whole(await asked)
            mine.first.append((answer.first_delta - answer.began) * 1000)
            await asyncio.sleep(0.02)  # what is done after the end is the turn's work too
            mine.cpu.append((server.cpu_seconds - before) * 1000)
    for connection in connections:
        connection.close()
    return found


async def _crowds(servers: list[Server], rounds: int) -> list[Found]:
    """Many streams at a time, each on a connection that is open already."""
    found = [Found([], [], []) for _ in servers]
    for number in range(rounds + 1):
        for server, mine in zip(servers, found, strict=True):
            connections = [server.connection() for _ in range(CROWD)]
            await asyncio.gather(*(connection.open() for connection in connections))
            request, before = server.request(SHORT), server.cpu_seconds
            answers = await asyncio.gather(*(connection.ask(request) for connection in connections))
            await asyncio.sleep(0.2)
            if number > 0:
                mine.first += [(_whole(answer).first_delta - answer.began) * 1000 for answer in answers]
                mine.cpu.append((server.cpu_seconds - before) * 1000 / CROWD)
            for connection in connections:
                connection.close()
    return found


def _whole(answer: Answer) -> Answer:
    assert answer.status == 200, answer
    assert answer.first_delta, answer
    assert b"event: error" not in answer.body, answer.body
    return answer


def _print(name: str, servers: list[Server], found: list[Found], store_ms: int) -> None:
    print(f"\nFirst delta: {name} ({len(found[0].first)} streams, milliseconds)")
    print(f"{'':12}{'p50':>9}{'p99':>9}{'beside bare':>13}{'CPU a turn':>12}{'beside bare':>13}{'MiB':>7}")
    bare = next(mine for server, mine in zip(servers, found, strict=True) if server.name == "bare")
    bare_first, bare_cpu = statistics.median(bare.first), statistics.mean(bare.cpu)
    for server, mine in zip(servers, found, strict=True):
        first, cpu = statistics.median(mine.first), statistics.mean(mine.cpu)
        print(
            f"{server.name:12}{first:9.2f}{statistics.quantiles(mine.first, n=100)[98]:9.2f}{first / bare_first:13.2f}"
            f"{cpu:12.2f}{cpu / bare_cpu:13.2f}{server.memory_mib:7.0f}"
        )
    if store_ms:
        floor = bare_first + 2 * store_ms
        print(f"beside bare and two round trips: {statistics.median(found[0].first) / floor:.2f}")
    if bare.cpu_before:
        ours, theirs = statistics.median(found[0].cpu_before), statistics.median(bare.cpu_before)
        print(f"CPU before the first delta: {ours:.2f}, bare {theirs:.2f}, added {ours - theirs:.2f}")


def _with_children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(found for child in children for found in _with_children(int(child)))]


def _cpu_of(pid: int) -> float:
    """The scheduler's count in nanoseconds: the clock ticks of `stat` are ten milliseconds long."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
