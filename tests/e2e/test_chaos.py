"""Clients that do as they please, while every process is killed at random, clocks differ and the engine loses answers.

CHAOS_TURNS=10000 (make chaos) is the long run; CHAOS_SEED repeats what clients, kills and losses were meant to be.
"""

import asyncio
import os
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest

from minichat.local.process import Child
from minichat.settings import Store
from tests.chaos.clients import Crowd, Reading, TurnTold
from tests.chaos.processes import CONSUMERS, Processes, Trouble
from tests.clocks import NEEDED
from tests.conftest import running_stack
from tests.support.events.consumers import (
    assert_audited_once,
    assert_metered_once,
    dead_letters,
    minichat,
    queues_of,
    serving,
    wait_until_it_agrees,
)
from tests.support.http.client import Stack, User
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Item, Tables, violations

TURNS = int(os.environ.get("CHAOS_TURNS", "80"))
LONG = "CHAOS_TURNS" in os.environ
AT_ONCE = 16 if LONG else 8
TROUBLE = Trouble(
    seed=int(os.environ.get("CHAOS_SEED") or SystemRandom().getrandbits(32)),
    lost_percent=1,
    skew=30,
    lives=(10, 30) if LONG else (3, 6),
    timeout=75 if LONG else 30,
)
HIDDEN_SECONDS = 4
"""Visibility timeout of the queues here: what a killed consumer held comes back soon."""
DRAINED_SECONDS = 120 + TURNS / 20


@dataclass
class Found:
    """What must not be, in words, and what was measured."""

    wrong: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    freed_after: list[float] = field(default_factory=list)


@pytest.mark.timeout(28_800 if LONG else 600)
def test_whatever_happens_nothing_is_lost_or_doubled_and_no_chat_stays_blocked(tmp_path: Path) -> None:
    print(f"\nCHAOS_TURNS={TURNS} CHAOS_SEED={TROUBLE.seed}", NEEDED or f"clocks ±{TROUBLE.skew} s", flush=True)
    with running_stack(tmp_path / "state", "--no-events", environment=TROUBLE.settings) as stack:
        client, urls, _ = queues_of(stack)
        for url in urls.values():
            client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(HIDDEN_SECONDS)})
        with Processes(stack, TROUBLE) as processes:
            crowd = Crowd(
                processes.up, lambda user: stack.token("acme", f"user-{user}"), TROUBLE.seed, iter(range(TURNS))
            )
            began = time.monotonic()
            _let_them(crowd, processes)
            seconds = time.monotonic() - began
        died = time.monotonic()
        print(f"{seconds:.0f} s; kill -9: {processes.kills()}\nlost: {dict(processes.losses())}")
        print(
            f"answers: {dict(sorted(crowd.statuses.items()))}\n{len(crowd.left_busy)} chats were left busy", flush=True
        )
        found = Found(wrong=list(crowd.complaints))
        time.sleep(max(0, died + TROUBLE.patience - time.monotonic()))
        store = Store(endpoint=stack.about["engine_url"])
        _look_at_those_who_died(stack, crowd, Tables.of(store), found)
        with ExitStack() as healthy:
            for function in CONSUMERS:
                healthy.callback(serving(stack, function, 10_000).stop)
            watchdog = [sys.executable, "-m", "tests.chaos.watchdog"]
            healthy.callback(Child("watchdog", watchdog, stack.state / "logs", stack.about["environment"]).stop)
            _wait_until_nothing_runs(store)
            agreed = wait_until_it_agrees(stack, DRAINED_SECONDS)
            tables = Tables.of(store)
            _compare(stack, crowd, processes, tables, found)
        print(f"turns: {dict(found.ends)}; freed after {_most(found.freed_after)}\n{agreed}")
        print(*found.wrong[:60], sep="\n")
        assert agreed.endswith(" 0 differences\n")
        assert violations(tables) == []
        turns = assert_metered_once(tables)
        assert_audited_once(tables, stack.state / "audit", turns)
        assert dead_letters(stack) == {}, [
            minichat(stack, "dlq", "show", queue).stdout for queue in dead_letters(stack)
        ]
        assert found.wrong == [], f"{len(found.wrong)} complaints"
        assert min(processes.kills().values()) >= 1


def _let_them(crowd: Crowd, processes: Processes) -> None:
    over = threading.Event()
    with ThreadPoolExecutor(1) as acting:
        done = acting.submit(asyncio.run, crowd.act(AT_ONCE))
        done.add_done_callback(lambda _: over.set())
        processes.kill_until(over)
        done.result()


def _look_at_those_who_died(stack: Stack, crowd: Crowd, tables: Tables, found: Found) -> None:
    """Whoever asks for a turn whose process died finds its chat free, now that its patience is over."""
    for pk, chat in tables.chats().items():
        chat_id = pk.split("#C#")[1]
        if "running" not in chat.head or "deleted_at" in chat.head:
            continue
        with stack.user("acme", f"user-{crowd.chats[chat_id]}") as user:
            began = time.monotonic()
            user.turn(chat_id, chat.head["running"])
            answer = user.send(chat_id, "[[say:alive]][[delay:0]]")
            found.freed_after.append(time.monotonic() - began)
            if answer.text != "alive":
                found.wrong.append(f"chat {chat_id} is blocked: {answer.problem or answer.names}")


def _wait_until_nothing_runs(store: Store) -> None:
    """The watchdog ends what nobody can ask for: turns of deleted chats."""
    deadline = time.monotonic() + PATIENCE
    while running := [item for item in Tables.of(store).conversations if "running_shard" in item]:
        assert time.monotonic() < deadline, running
        time.sleep(0.2)


def _compare(stack: Stack, crowd: Crowd, processes: Processes, tables: Tables, found: Found) -> None:
    """What clients were told, with what is stored and what those are told who ask now."""
    turns: dict[str, Item] = {}
    for chat in tables.chats().values():
        turns |= chat.turns
    found.ends.update(f"{turn['state']} {turn.get('error', '')}".strip() for turn in turns.values())
    with ExitStack() as clients:
        users = {
            number: clients.enter_context(stack.user("acme", f"user-{number}")) for number in set(crowd.chats.values())
        }
        for told in crowd.told:
            stored = turns.get(told.request_id)
            if stored is not None:
                told.complaints += _against(told, stored, died=any(processes.died_since(*one) for one in told.asked))
                _ask_again(users[crowd.chats[told.chat_id]], told, stored)
            elif told.frames:
                told.complaints.append("was told of, and is not there")
            found.wrong += [f"{told.request_id} of {told.chat_id}: {complaint}" for complaint in told.complaints]


def _against(told: TurnTold, stored: Item, *, died: bool) -> list[str]:
    state = {"completed": {"done"}, "cancelled": {"cancelled"}}.get(stored["state"])
    ends = {reading.end for reading in told.readings if reading.end is not None}
    wrong = [
        f"was told to have ended as {end}, and is {stored['state']} {stored.get('error')}"
        for end in ends
        if (end not in state if state else end in ("done", "cancelled"))
    ]
    if stored.get("error") == "orphan_timeout" and not died:
        wrong.append("was ended as dead, although no server died that had been asked for it")
    return wrong


def _ask_again(user: User, told: TurnTold, stored: Item) -> None:
    """The whole stream once more: the same events, and the text that is stored."""
    answer = user.resume(told.chat_id, told.request_id)
    if answer.status == 404:  # deleted, or its chat is
        return
    earlier = [reading for reading in told.readings if not reading.is_wrong]
    whole = Reading(told)
    for event in answer.events:
        if event.id is not None:
            whole.told((event.id, event.name, event.data))
    if whole.is_wrong:
        return
    text = _message(user, told)
    state = f"{stored['state']} {stored.get('error', '')}".strip()
    failed = stored["state"] == "failed" and stored["error"] != "orphan_timeout"
    if text != (None if failed else whole.text or None):
        told.complaints.append(f"is {state}, tells {whole.text[-60:]!r}, and has {text and text[-60:]!r}")
    if stored["state"] == "completed" and "cut" not in stored and whole.text != told.whole_text:
        told.complaints.append("is done, and its answer is not whole")
    for reading in earlier:
        # Who was told more than was stored was told it by a process that died.
        ahead = stored.get("error") == "orphan_timeout" or stored["state"] == "cancelled"
        if not whole.text.startswith(reading.text) and not (ahead and reading.text.startswith(whole.text)):
            told.complaints.append(f"told {reading.text[-60:]!r}, and has {whole.text[-60:]!r}")


def _message(user: User, told: TurnTold) -> str | None:
    params: dict[str, Any] = {"$filter": "role eq 'assistant'"}
    while True:
        page = user.http.get(f"/chats/{told.chat_id}/messages", params={"limit": 100, **params}).json()
        for message in page["items"]:
            if message["request_id"] == told.request_id:
                return str(message["content"])
        if page["page_info"]["next_cursor"] is None:
            return None
        params["cursor"] = page["page_info"]["next_cursor"]


def _most(seconds: list[float]) -> str:
    return f"{max(seconds):.2f} s at most, of {len(seconds)}" if seconds else "-"
