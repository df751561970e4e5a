"""Races over real HTTP: of any number of mutations at once exactly one takes effect, and none is an error of ours.

`RACE_ROUNDS` and `RACE_SECONDS` set the size: `make race` runs 100 rounds and 60 s, `make test` a short form.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from minichat.settings import Store
from tests.conftest import ROOT, running_stack
from tests.support.http.client import Answer, Stack, User
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations

ROUNDS = int(os.environ.get("RACE_ROUNDS", "5"))
SECONDS = float(os.environ.get("RACE_SECONDS", "6"))
RACERS = 64
WON = (("send", 200), ("retry", 200), ("edit", 200), ("delete", 204))
"""What the operations of the mix answer when they take effect."""


@pytest.fixture(scope="module", params=["ministack", "dynoxide", "dynamodb-local"])
def racetrack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The local stack on each engine that is atomic under threads."""
    kind = str(request.param)
    if kind != "ministack" and not (ROOT / ".tools" / kind).exists():
        pytest.skip(f"{kind} is not installed (`make tools` says why)")
    state: Path = tmp_path_factory.mktemp(kind)
    with running_stack(state, "--engine", kind) as stack:
        yield stack
        assert violations(_tables(stack)) == []


def _tables(stack: Stack) -> Tables:
    return Tables.of(Store(endpoint=stack.about["engine_url"]))


def _race(run: Callable[[int], int], count: int = RACERS) -> Counter[int]:
    """The statuses of `count` calls that start at the same moment."""
    start = threading.Barrier(count)

    def one(number: int) -> int:
        start.wait(PATIENCE)
        return run(number)

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(one, range(count)))


@pytest.mark.holds("contract.lost-race", "turns.one-mutation")
def test_of_many_retries_of_one_turn_one_wins(racetrack: Stack) -> None:
    with racetrack.user() as user:
        for _ in range(ROUNDS):
            chat_id = user.new_chat()
            turn = user.send(chat_id, "[[say:hi]]").request_id
            outcomes: list[Answer] = []

            def retry(_: int, chat_id: str = chat_id, turn: str = turn, outcomes: list[Answer] = outcomes) -> int:
                answer = user.retry(chat_id, turn)
                outcomes.append(answer)
                return answer.status

            assert _race(retry) == {200: 1, 409: RACERS - 1}
            codes = {answer.problem["code"] for answer in outcomes if answer.problem}
            assert codes <= {"not_latest_turn", "generation_in_progress"}
            assert user.chat(chat_id)["message_count"] == 2


@pytest.mark.holds("contract.lost-race", "turns.one-running")
def test_of_many_sends_into_one_chat_one_wins(racetrack: Stack) -> None:
    with racetrack.user() as user:
        for _ in range(ROUNDS):
            chat_id, hold = user.new_chat(), uuid4().hex
            refused = threading.Semaphore(0)

            def send(_: int, chat_id: str = chat_id, hold: str = hold, refused: threading.Semaphore = refused) -> int:
                body = {"content": f"[[say:hi]][[hold-start:{hold}]]"}
                with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (answer, events):
                    if answer.status == 200:
                        # The winner's turn runs until everybody else was told so.
                        for _ in range(RACERS - 1):
                            assert refused.acquire(timeout=PATIENCE)
                        racetrack.release(hold)
                        assert [event.name for event in events][-1] == "done"
                    else:
                        assert answer.problem["code"] == "generation_in_progress"
                        refused.release()
                return answer.status

            assert _race(send) == {200: 1, 409: RACERS - 1}
            assert user.chat(chat_id)["message_count"] == 2


def test_the_same_send_many_times_at_once_makes_one_turn(racetrack: Stack) -> None:
    with racetrack.user() as user:
        for _ in range(ROUNDS):
            chat_id, request_id = user.new_chat(), str(uuid4())
            texts: set[str] = set()

            def send(_: int, chat_id: str = chat_id, request_id: str = request_id, texts: set[str] = texts) -> int:
                answer = user.send(chat_id, "[[say:once]]", request_id=request_id)
                if answer.status == 200:
                    texts.add(answer.text)
                else:
                    assert answer.problem["code"] == "request_id_conflict"
                return answer.status

            statuses = _race(send)
            assert set(statuses) <= {200, 409}
            assert statuses[200] >= 1
            assert texts == {"once"}
            assert user.chat(chat_id)["message_count"] == 2


def test_the_same_idempotency_key_many_times_at_once_makes_one_chat(racetrack: Stack) -> None:
    with racetrack.user() as user:
        headers = {"idempotency-key": uuid4().hex}
        assert _race(lambda _: user.http.post("/chats", json={}, headers=headers).status_code) == {201: RACERS}
        assert len(user.http.get("/chats").json()["items"]) == 1


@pytest.mark.holds("turns.one-mutation", "turns.one-settlement")
def test_any_mix_of_mutations_keeps_every_invariant(racetrack: Stack) -> None:
    with racetrack.user() as user:
        chats = [user.new_chat() for _ in range(4)]
        deadline, last = time.monotonic() + SECONDS, time.monotonic() + PATIENCE
        statuses: Counter[tuple[str, int]] = Counter()

        def client(number: int) -> int:
            rng = random.Random(number)
            # A busy machine gets the time until each kind of mutation has won once.
            while time.monotonic() < deadline or (time.monotonic() < last and not all(statuses[won] for won in WON)):
                op, status = _anything(user, rng, rng.choice(chats))
                statuses[op, status] += 1
            return 0

        _race(client, count=16)
    assert {status for _, status in statuses} <= {200, 204, 400, 404, 409}, statuses
    assert all(statuses[won] for won in WON), statuses
    assert violations(_tables(racetrack)) == []


def _anything(user: User, rng: random.Random, chat_id: str) -> tuple[str, int]:
    """One random operation on a chat; retry, edit and delete aim at its latest turn, or at an old one by being late."""
    op = rng.choice(["send", "send", "retry", "edit", "delete"])
    listed = user.messages(chat_id, **{"$orderby": "created_at desc", "limit": 1})
    if op == "send" or not listed:
        return "send", user.send(chat_id, f"[[words:{rng.randint(1, 4)}]][[delay:5]]").status
    turn = listed[0]["request_id"]
    if op == "retry":
        return op, user.retry(chat_id, turn).status
    if op == "edit":
        return op, user.edit(chat_id, turn, f"[[words:{rng.randint(1, 4)}]][[delay:5]]").status
    return op, user.delete(chat_id, turn).status_code
