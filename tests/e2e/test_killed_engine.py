"""The engine of a stack with `--state` dies in the middle of conversations: what is there when the stack runs again.

KILLED_TURNS=200 (make killed-engine) is the long run.
"""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import httpx2

from tests.conftest import running_stack
from tests.support.events.consumers import wait_until_it_agrees
from tests.support.http.client import StartedStack, User
from tests.support.patience import PATIENCE

TURNS = int(os.environ.get("KILLED_TURNS", "20"))
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Told:
    """A turn whose end a client has seen."""

    user: str
    chat_id: str
    request_id: str
    at: float


def test_a_killed_engine_costs_the_turns_of_less_than_a_second(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        told: list[Told] = []
        for number in range(AT_ONCE):
            pool.submit(_talk, stack, f"user-{number}", told)
        while len(told) < TURNS:
            assert stack.process.poll() is None
        os.kill(stack.about["pids"]["the engine ministack"], signal.SIGKILL)
        killed = time.monotonic()
        assert stack.process.wait(PATIENCE) == 2
        assert stack.process.stdout is not None
        said = stack.process.stdout.read()
        assert "the engine ministack was killed by SIGKILL. It said nothing." in said
    before = [turn for turn in told if turn.at < killed]
    with running_stack(tmp_path) as stack:
        lost = [turn for turn in before if not _is_there(stack, turn)]
        seconds = killed - min((turn.at for turn in lost), default=killed)
        pauses = [later.at - earlier.at for earlier, later in pairwise(before)]
        print(f"{len(before)} turns were told, {len(lost)} of them are lost: those of the last {seconds:.2f} s")
        assert seconds <= 1 + max(pauses)  # where turns come that slowly, so do snapshots
        with stack.user("acme", "user-0") as user:
            assert user.send(user.new_chat(), "[[say:on we go]]").text == "on we go"
        assert "; 0 differences" in wait_until_it_agrees(stack, PATIENCE)


def _talk(stack: StartedStack, name: str, told: list[Told]) -> None:
    """One turn after another, in chats of ten, until the stack is gone."""
    with stack.user("acme", name) as user:
        try:
            while True:
                chat_id = user.new_chat()
                for _ in range(10):
                    request_id = str(uuid4())
                    if user.send(chat_id, "[[words:5]]", request_id=request_id).names[-1:] != ["done"]:
                        return
                    told.append(Told(name, chat_id, request_id, time.monotonic()))
        except (httpx2.HTTPError, AssertionError):
            return


def _is_there(stack: StartedStack, turn: Told) -> bool:
    with User(stack.base_url, stack.token("acme", turn.user)) as user:
        answer = user.turn(turn.chat_id, turn.request_id)
    return answer.status_code == 200 and answer.json()["state"] == "done"
