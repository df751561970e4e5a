"""Two hundred streams at once through one server: none lost, none mixed up, and memory that stays bounded."""

import asyncio
import json
import statistics
import time
from pathlib import Path
from uuid import uuid4

import httpx2

from minichat.settings import Store
from tests.conftest import running_stack
from tests.support.http.client import Stack
from tests.support.storage.invariants import Tables, violations

STREAMS = 200
WORDS = 40
GROWTH_MB = 120


async def test_two_hundred_streams_at_once(tmp_path: Path) -> None:
    with running_stack(tmp_path / "state") as stack:
        before = _resident_mb(stack)
        # A connection that idles while everybody starts may be closed in the moment that it is used again.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx2.AsyncClient(base_url=stack.base_url, timeout=120, trust_env=False, limits=limits) as client:
            began = time.perf_counter()
            seconds = await asyncio.gather(*(_stream(stack, client) for _ in range(STREAMS)))
            took = time.perf_counter() - began
        grown = _resident_mb(stack) - before
        first = [one for one, _ in seconds]
        print(
            f"\n{STREAMS} streams of {WORDS} words in {took:.1f} s; first word after "
            f"{statistics.median(first):.2f} s (p50), {max(first):.2f} s (last); server +{grown} MB"
        )
        assert grown < GROWTH_MB
        tables = Tables.of(Store(endpoint=stack.about["engine_url"]))
        assert violations(tables) == []
        assert sum(item["type"] == "turn_completed" for item in tables.outbox) == STREAMS


async def _stream(stack: Stack, client: httpx2.AsyncClient) -> tuple[float, float]:
    """Seconds to the first word and to the end of one stream, whose words nobody else's has."""
    name = uuid4().hex
    headers = {"authorization": f"Bearer {stack.token('acme', name)}"}
    chat = (await client.post("/chats", json={}, headers=headers)).json()["id"]
    mine = [f"{name}-{number} " for number in range(WORDS)]
    began, first, text, numbers = time.perf_counter(), 0.0, "", []
    body = {"content": f"[[say:{''.join(mine)}]][[delay:50]]"}
    async with client.stream("POST", f"/chats/{chat}/messages:stream", json=body, headers=headers) as response:
        assert response.status_code == 200
        event = ""
        async for line in response.aiter_lines():
            key, _, value = line.partition(": ")
            if key == "id":
                numbers.append(int(value))
            elif key == "event":
                event = value
            elif key == "data" and event == "delta":
                first = first or time.perf_counter() - began
                text += json.loads(value)["content"]
    assert (event, text) == ("done", "".join(mine))
    assert numbers == list(range(1, WORDS + 3))
    return first, time.perf_counter() - began


def _resident_mb(stack: Stack) -> int:
    status = Path(f"/proc/{stack.about['pids']['the server']}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1024
