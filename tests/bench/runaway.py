"""What others notice of a client that runs away: time to the first delta of another tenant's user, alone and meanwhile.

The client is a process of its own: 150 sends at once into as many chats, 200 followers of one of its turns. Whoever of
them is refused comes again when told. On one machine all of them, the server and the engine share the processors; the
last line is of a client that is refused and stays away, and only keeps what its limits allow.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import httpx2

from tests.conftest import another_server, patient, running_stack
from tests.support.http.client import Stack

SENDS, FOLLOWERS, ROUNDS, WARM_UP = 150, 200, 12, 3
RATES = {"MINICHAT_RATES__TURNS_IN_FLIGHT": "10", "MINICHAT_RATES__FOLLOWERS": "20"}
SCRIPT = "[[words:5]][[delay:0]][[first-token:0]]"


def main() -> None:
    """Prints the medians and their ratios."""
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder) / "stack") as stack:
        asyncio.run(_measured(stack))


async def _measured(stack: Stack) -> None:
    with another_server(stack, **RATES, **patient(stack)) as server:
        quiet = _client(server.base_url, stack.token("quiet", "bob"))
        await _first_deltas(quiet, WARM_UP)
        alone = await _first_deltas(quiet, ROUNDS)
        for comes_again in ("again", "once"):
            token = stack.token("loud", uuid4().hex)
            command = [sys.executable, "-m", "tests.bench.runaway", server.base_url, token, comes_again]
            pipe = asyncio.subprocess.PIPE
            loud = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
            assert loud.stdout is not None
            await loud.stdout.readline()
            meanwhile = await _first_deltas(quiet, ROUNDS)
            said, _ = await loud.communicate(b"stop\n")
            ratio = statistics.median(meanwhile) / statistics.median(alone)
            print(
                f"first delta of another tenant (p50): alone {statistics.median(alone):.1f} ms, beside a runaway client"
                f" that comes {comes_again} {statistics.median(meanwhile):.1f} ms: {ratio:.2f} times; "
                f"{said.decode().strip()}",
                flush=True,
            )
            alone = await _first_deltas(quiet, ROUNDS)
        await quiet.aclose()


def _client(base_url: str, token: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=120, limits=limits, trust_env=False)


async def _first_deltas(client: httpx2.AsyncClient, rounds: int) -> list[float]:
    """Milliseconds to the first delta of so many sends, one after the other, each in a chat of its own."""
    found = []
    for _ in range(rounds):
        chat = (await client.post("/chats", json={})).json()["id"]
        began = time.perf_counter()
        async with client.stream("POST", f"/chats/{chat}/messages:stream", json={"content": SCRIPT}) as answer:
            assert answer.status_code == 200, await answer.aread()
            lines = answer.aiter_lines()
            while await anext(lines) != "event: delta":
                pass
            found.append((time.perf_counter() - began) * 1000)
            async for _ in lines:
                pass
    return found


async def run_away(base_url: str, token: str, *, comes_again: bool) -> None:
    """Sends and follows as fast as it is let, until a line is read."""
    client, held, refused = _client(base_url, token), [0, 0], [0, 0]
    made = await asyncio.gather(*(client.post("/chats", json={}) for _ in range(SENDS)))
    chats = [answer.json()["id"] for answer in made]
    first, first_request, stop = chats[0], str(uuid4()), asyncio.Event()
    began, all_asked = asyncio.Event(), asyncio.Event()

    def answered() -> None:
        began.set()
        if sum(held) + sum(refused) >= SENDS + FOLLOWERS:
            all_asked.set()

    async def asks(kind: int, method: str, path: str, body: object = None) -> None:
        while not stop.is_set():
            async with client.stream(method, path, json=body) as answer:
                if answer.status_code == 200:
                    held[kind] += 1
                    answered()
                    await stop.wait()
                    return
                problem = json.loads(await answer.aread())
                assert problem["code"] == "rate_limited", problem
                refused[kind] += 1
                answered()
            if not comes_again:
                return
            await asyncio.sleep(problem["retry_after_seconds"])

    def sends(chat: str, request_id: str) -> asyncio.Task[None]:
        body = {"content": f"[[words:2]][[hold:{uuid4()}]]", "request_id": request_id}
        return asyncio.create_task(asks(0, "POST", f"/chats/{chat}/messages:stream", body))

    tasks = [sends(first, first_request)]
    await began.wait()
    tasks += [sends(chat, str(uuid4())) for chat in chats[1:]]
    path = f"/chats/{first}/turns/{first_request}/stream"
    tasks += [asyncio.create_task(asks(1, "GET", path)) for _ in range(FOLLOWERS)]
    await all_asked.wait()
    print("refused", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    await asyncio.gather(*tasks)
    print(f"{held[0]} turns ran and {refused[0]} sends were refused, {held[1]} followers and {refused[1]} refused")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(run_away(sys.argv[1], sys.argv[2], comes_again=sys.argv[3] == "again"))
    else:
        main()
