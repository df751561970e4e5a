"""What the product adds to the provider's own stream: time to the first delta and to the end, beside a bare relay.

Both are asked in turn, by the same client, for the same script of the same provider, each over its own HTTP server.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx2

from minichat.local.process import Child, free_port
from tests.conftest import running_stack
from tests.support.http.client import User

ROUNDS = 60
WARM_UP = 10
CROWD, CROWD_ROUNDS = 50, 4
SCRIPTS = {
    "short answer, no pauses": "[[words:20]][[delay:0]]",
    "100 words, 5 ms apart": "[[words:100]][[delay:5]]",
}


@dataclass
class Times:
    """Milliseconds to the first delta and to the end, of every round."""

    first: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)


def main(*arguments: str) -> None:
    """Prints both times of both servers, and their ratios; the arguments are for `minichat dev`, such as an engine."""
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder), *arguments) as stack:
        port = free_port()
        command = [sys.executable, "-m", "tests.bench.bare_relay", "--port", str(port)]
        command += ["--provider-url", str(stack.about["provider_url"])]
        relay = Child("the bare relay", command, Path(folder))
        relay.wait_until_it_answers(f"http://127.0.0.1:{port}/health")
        try:
            with stack.user() as user, _client() as client:
                for name, script in SCRIPTS.items():
                    product, bare = Times(), Times()
                    for number in range(ROUNDS + WARM_UP):
                        chat_id = user.new_chat()
                        body = {"content": f"{script}{uuid4()}"}
                        url = f"/chats/{chat_id}/messages:stream"
                        keep = number >= WARM_UP
                        _one(lambda u=url, b=body: user.http.stream("POST", u, json=b), product, keep)  # type: ignore[misc]
                        _one(lambda b=body: client.stream("POST", f"http://127.0.0.1:{port}/", json=b), bare, keep)  # type: ignore[misc]
                    _print(name, product, bare)
                _crowd(user, client, f"http://127.0.0.1:{port}/")
        finally:
            relay.stop()


def _client() -> httpx2.Client:
    return httpx2.Client(trust_env=False, timeout=60, limits=httpx2.Limits(max_connections=None))


def _crowd(user: User, client: httpx2.Client, bare_url: str) -> None:
    """The same with fifty streams at a time, each in a chat of its own, product and relay in turn."""
    product, bare = Times(), Times()
    body = {"content": "[[words:40]][[delay:50]]"}

    def ask(chat_id: str, keep: bool) -> None:
        url = f"/chats/{chat_id}/messages:stream"
        _one(lambda: user.http.stream("POST", url, json=body), product, keep)

    def ask_bare(keep: bool) -> None:
        _one(lambda: client.stream("POST", bare_url, json=body), bare, keep)

    with ThreadPoolExecutor(CROWD) as pool:
        for number in range(CROWD_ROUNDS + 1):
            keep = [number > 0] * CROWD
            chats = [user.new_chat() for _ in range(CROWD)]
            list(pool.map(ask, chats, keep))
            list(pool.map(ask_bare, keep))
    _print(f"{CROWD} at a time, 40 words, 50 ms apart", product, bare, CROWD_ROUNDS)


def _one(open_stream: Callable[[], object], times: Times, keep: bool) -> None:
    started = time.perf_counter()
    first = None
    with open_stream() as response:  # type: ignore[attr-defined]
        assert response.status_code == 200
        for part in response.iter_raw():
            if first is None and b"delta" in part:
                first = time.perf_counter() - started
    assert first is not None
    if keep:
        times.first.append(first * 1000)
        times.end.append((time.perf_counter() - started) * 1000)


def _print(name: str, product: Times, bare: Times, rounds: int = ROUNDS) -> None:
    print(f"\nStream overhead: {name} ({rounds} rounds, milliseconds)")
    print(f"{'':22}{'product p50':>14}{'p99':>10}{'bare p50':>12}{'p99':>10}{'ratio p50':>12}{'added p50':>12}")
    for label, ours, theirs in (("to first delta", product.first, bare.first), ("to the end", product.end, bare.end)):
        p50, b50 = statistics.median(ours), statistics.median(theirs)
        p99, b99 = _p99(ours), _p99(theirs)
        print(f"{label:22}{p50:14.2f}{p99:10.2f}{b50:12.2f}{b99:10.2f}{p50 / b50:12.2f}{p50 - b50:12.2f}")


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


if __name__ == "__main__":
    main(*sys.argv[1:])
