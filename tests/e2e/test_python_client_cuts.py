"""The Python client over connections that break at every kind of place, and in processes that die at every step."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from minichat_client import Answer, AsyncAnswer, AsyncMiniChat, DoneEvent, MiniChat
from tests.support.http.client import Stack
from tests.support.http.cutting_proxy import PLACES, CuttingProxy, at_random
from tests.support.patience import PATIENCE

CUTS = int(os.environ.get("CUTS", "40"))
AT_ONCE = 8
TEXT = "Größe, 数 and 🙂: every word counts, twice."
SENT = f"[[say:{TEXT}]][[tool:web_search]][[delay:5]]"
EDITED = f"[[say:{TEXT}]][[delay:5]] once more"
DEATHS = {
    "blocking": ("unsent", "sent", "answered", "1", "2", "6", "10"),
    "asynchronous": ("sent", "answered", "1", "6"),
}
Outcome = tuple[list[int], str, type | None]
WHOLE = TEXT, DoneEvent


def wrong(heard: list[Outcome], said: list[str], count: int) -> list[object]:
    """What is not as an uncut conversation: a send with a tool, a retry, an edit."""
    found: list[object] = [
        one for one in heard if one[0] != list(range(1, len(one[0]) + 1)) or (one[1], one[2]) != WHOLE
    ]
    if (said, count) != ([EDITED, TEXT], 2):
        found.append((said, count))
    return found


def read(answer: Answer) -> Outcome:
    numbers = [event.number for event in answer]
    return numbers, answer.text, type(answer.end)


async def read_on_loop(answer: AsyncAnswer) -> Outcome:
    numbers = [event.number async for event in answer]
    return numbers, answer.text, type(answer.end)


def held(url: str, token: str) -> list[object]:
    with MiniChat(url, token) as client:
        chat = client.create_chat(title="Cut")
        sent = client.send(chat, SENT, web_search=True)
        heard = [read(sent)]
        retried = client.retry(chat, sent.request_id or "")
        heard.append(read(retried))
        heard.append(read(client.edit(chat, retried.request_id or "", EDITED)))
        said = [message.content for message in client.messages(chat)]
        return wrong(heard, said, client.chat(chat).message_count)


async def held_on_loop(url: str, token: str) -> list[object]:
    async with AsyncMiniChat(url, token) as client:
        chat = await client.create_chat(title="Cut")
        sent = client.send(chat, SENT, web_search=True)
        heard = [await read_on_loop(sent)]
        retried = client.retry(chat, sent.request_id or "")
        heard.append(await read_on_loop(retried))
        heard.append(await read_on_loop(client.edit(chat, retried.request_id or "", EDITED)))
        said = [message.content async for message in client.messages(chat)]
        return wrong(heard, said, (await client.chat(chat)).message_count)


def in_threads(url: str, tokens: list[str]) -> list[list[object]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda token: held(url, token), tokens))


def on_a_loop(url: str, tokens: list[str]) -> list[list[object]]:
    async def all_of_them() -> list[list[object]]:
        return list(await asyncio.gather(*(held_on_loop(url, token) for token in tokens)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("hold", [in_threads, on_a_loop])
def test_a_stream_that_is_cut_anywhere_is_told_whole_and_each_event_once(
    stack: Stack, hold: Callable[[str, list[str]], list[list[object]]]
) -> None:
    calls, conversations = stack.provider_stats()["calls"], 0
    with CuttingProxy(stack.base_url, at_random(seed=CUTS)) as proxy:
        while sum(proxy.cuts.values()) < CUTS or set(proxy.cuts) < set(PLACES):
            tokens = [stack.token("acme", uuid4().hex) for _ in range(AT_ONCE)]
            assert hold(proxy.url, tokens) == [[] for _ in tokens]
            conversations += AT_ONCE
        print(f"{sum(proxy.cuts.values())} cuts in {conversations} conversations: {dict(proxy.cuts)}")
    assert stack.provider_stats()["calls"] == calls + 3 * conversations


@pytest.mark.parametrize("kind", DEATHS)
def test_a_message_is_one_turn_wherever_its_process_dies(stack: Stack, kind: str) -> None:
    def outcome(death: str) -> list[object]:
        name, request_id, content = uuid4().hex, str(uuid4()), f"[[say:{TEXT}]][[delay:30]]"
        with stack.user("acme", name) as user:
            chat_id = user.new_chat(title="Dying")
            program = [sys.executable, "-m", "tests.support.http.dying_sender", kind, stack.base_url]
            program += [stack.token("acme", name), chat_id, request_id, content]
            died = subprocess.run([*program, death], capture_output=True, timeout=PATIENCE, check=False)
            assert died.returncode == -signal.SIGKILL, died.stderr
            again = subprocess.run([*program, "never"], capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert again.returncode == 0, again.stderr
            numbers, text = json.loads(again.stdout)
            while "running_request_id" in user.chat(chat_id):
                time.sleep(0.05)
            return [death, numbers == list(range(1, len(numbers) + 1)), text, len(user.messages(chat_id))]

    calls = stack.provider_stats()["calls"]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(outcome, DEATHS[kind]))
    assert found == [[death, True, TEXT, 2] for death in DEATHS[kind]]
    assert stack.provider_stats()["calls"] == calls + len(DEATHS[kind])
