"""Whoever stops an answer, or whose server dies, pays for the share of it that was told (turns-and-quota 6)."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from uuid import uuid4

import httpx2
import pytest

from minichat.settings import Store
from tests.conftest import another_server, patient, running_stack
from tests.support.events.consumers import minichat
from tests.support.http.client import Stack, User
from tests.support.storage.invariants import Tables, violations

WORDS = 8_000
TOLD = (800, 4_000, 7_200, 7_999)
"""Words after which the answer goes no further: 10, 50, 90 and 99.99 % of them."""
SETTINGS = {"MINICHAT_STREAMING__MAX_OUTPUT_TOKENS": "32768", "MINICHAT_ORPHAN_WATCHDOG__TIMEOUT_SECONDS": "30"}


def _answer(words: int) -> str:
    return " ".join(f"word{number}" for number in range(1, words + 1))


@pytest.fixture(scope="module")
def long_answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("long") / "state", environment=SETTINGS) as stack:
        yield stack


@pytest.fixture(scope="module")
def whole(long_answers: Stack) -> int:
    """What the whole answer costs, by the usage that its provider reports."""
    with long_answers.user("acme", uuid4().hex) as user:
        assert user.send(user.new_chat(), f"[[words:{WORDS}]][[delay:0]]").text == _answer(WORDS)
        return _used(user)


def _used(user: User) -> int:
    tiers = user.http.get("/quota/status").json()["tiers"]
    return int(next(one for one in tiers if one["tier"] == "total")["periods"][0]["used_credits_micro"])


def _read(user: User, chat_id: str, request_id: str, words: int) -> None:
    """Sends, and reads until the connection ends or breaks."""
    body = {"content": f"[[words:{WORDS}]][[delay:0]][[stall:{words}]]", "request_id": request_id}
    with (
        user,
        suppress(httpx2.HTTPError),
        user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events),
    ):
        list(events)


def _wait_until_told(user: User, chat_id: str, request_id: str, words: int) -> None:
    """Another instance tells what is stored: so many words are."""
    while user.turn(chat_id, request_id).status_code == 404:
        pass
    with user.streaming("GET", f"/chats/{chat_id}/turns/{request_id}/stream") as (_, events):
        told = ""
        while f"word{words}" not in told.split():
            told += next(events).data.get("content", "")


def _charges(stack: Stack, victim: another_server, stop: Callable[[User, str, str], None] | None) -> list[int]:
    """What four users pay whose answers of `victim` came as far as TOLD; without `stop` the server is killed."""
    users = [uuid4().hex for _ in TOLD]
    with ThreadPoolExecutor(len(TOLD)) as pool, ExitStack() as opened:
        clients = [opened.enter_context(stack.user("acme", name)) for name in users]
        turns = [(client.new_chat(), str(uuid4())) for client in clients]
        reading = [
            pool.submit(_read, victim.user("acme", name), *turn, words)
            for name, turn, words in zip(users, turns, TOLD, strict=True)
        ]
        for client, turn, words in zip(clients, turns, TOLD, strict=True):
            _wait_until_told(client, *turn, words)
        if stop is None:
            os.kill(victim.child.pid, signal.SIGKILL)
        else:
            for client, turn in zip(clients, turns, strict=True):
                stop(client, *turn)
        for one in reading:
            one.result()
        paid = []
        for client, turn, words in zip(clients, turns, TOLD, strict=True):
            while client.turn(*turn).json()["state"] == "running":
                pass
            assert client.messages(turn[0])[1]["content"].split() == _answer(words).split()
            paid.append(_used(client))
        return paid


@pytest.mark.parametrize("end", ["cancel", "kill -9"])
@pytest.mark.holds("turns.cut-costs")
def test_a_cut_answer_costs_its_share_of_the_whole(long_answers: Stack, whole: int, end: str) -> None:
    def cancel(user: User, chat_id: str, request_id: str) -> None:
        assert user.cancel(chat_id, request_id).status_code == 202

    # The first answer is silent until the last one has come as far as it goes, which is as long as it takes.
    with another_server(long_answers, **patient(long_answers)) as victim:
        charges = _charges(long_answers, victim, cancel if end == "cancel" else None)
    shares = [len(_answer(words)) / len(_answer(WORDS)) for words in TOLD]
    print(f"\n{end}: the whole {whole}")
    for words, share, paid in zip(TOLD, shares, charges, strict=True):
        print(f"{words / WORDS:8.2%} of the words, {share:8.2%} of the text: {paid} micro-credits, {paid / whole:.2%}")
    for share, paid in zip(shares, charges, strict=True):
        assert paid == pytest.approx(share * whole, rel=0.1)
    tables = Tables.of(Store(endpoint=long_answers.about["engine_url"]))
    assert violations(tables) == []
    assert minichat(long_answers, "reconcile").stdout.endswith(" 0 differences\n")
