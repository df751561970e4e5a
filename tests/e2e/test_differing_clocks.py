"""Processes whose clocks differ by a minute: a living turn lives, a dead one is found in time."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from tests.clocks import NEEDED, WallClock
from tests.conftest import another_server, running_stack
from tests.support.http.client import Stack

pytestmark = pytest.mark.skipif(NEEDED is not None, reason=str(NEEDED))

TIMEOUT_SECONDS = 30
"""The shortest that may be set: by their own clocks these processes would take each other's turns for dead at once."""
SETTINGS = {
    "MINICHAT_ORPHAN_WATCHDOG__TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
    # Tokens are judged by the own clock.
    "MINICHAT_AUTH__LEEWAY_SECONDS": "120",
}
STEP_SECONDS = 0.5


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose turns are soon taken for dead."""
    with running_stack(tmp_path_factory.mktemp("clocks") / "state", environment=SETTINGS) as started:
        yield started


def a_server(stack: Stack, ahead: int) -> another_server:
    """A server of the stack whose clock is so many seconds ahead, or behind."""
    return another_server(stack, **SETTINGS, **WallClock(stack.state / f"clock{ahead:+d}", ahead).environment)


def seconds_off(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(("teller", "looker"), [(-30, 30), (30, -30)])
@pytest.mark.holds("turns.margins")
def test_a_living_turn_survives_clocks_that_differ_and_ends_itself_when_asked(
    stack: Stack, teller: int, looker: int
) -> None:
    name, hold, request_id = uuid4().hex, uuid4().hex, str(uuid4())
    with (
        a_server(stack, teller) as one,
        a_server(stack, looker) as other,
        one.user("acme", name) as user,
        other.user("acme", name) as elsewhere,
    ):
        chat_id = user.new_chat()
        assert abs(seconds_off(user.chat(chat_id)["created_at"])) < 10, "even the first instant is by the store's clock"
        body = {"content": f"[[words:9]][[hold:{hold}]]", "request_id": request_id}
        with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
            assert [next(events).name for _ in range(2)] == ["stream_started", "delta"]
            renewed = {elsewhere.turn(chat_id, request_id).json()["updated_at"]}
            while len(renewed) < 3:  # looked at while it is renewed twice
                seen = elsewhere.turn(chat_id, request_id).json()
                assert seen["state"] == "running"
                assert abs(seconds_off(seen["updated_at"])) < 20
                assert elsewhere.send(chat_id, "another").problem["code"] == "generation_in_progress"
                renewed.add(seen["updated_at"])
                time.sleep(STEP_SECONDS)
            assert elsewhere.cancel(chat_id, request_id).json()["state"] == "running"
            last = [event for event in events if event.name != "ping"]
        # Told by itself: whoever ends another's turn leaves a million numbers out.
        assert [(event.data.get("code"), event.id) for event in last] == [("cancelled", 3)]
        assert user.turn(chat_id, request_id).json()["state"] == "cancelled"
        assert [message["content"] for message in elsewhere.messages(chat_id)][1:] == ["word1 "]


def test_a_dead_turn_blocks_its_chat_for_as_long_as_is_promised_whoevers_clock_is_ahead(stack: Stack) -> None:
    name, hold = uuid4().hex, uuid4().hex
    with a_server(stack, -30) as other, other.user("acme", name) as elsewhere:
        with a_server(stack, 30) as victim, victim.user("acme", name) as user:
            chat_id = user.new_chat()
            with user.streaming(
                "POST", f"/chats/{chat_id}/messages:stream", json={"content": f"[[words:9]][[hold:{hold}]]"}
            ) as (_, events):
                assert [next(events).name for _ in range(2)] == ["stream_started", "delta"]
                os.kill(victim.child.pid, signal.SIGKILL)
        died_at = time.monotonic()
        while elsewhere.send(chat_id, "[[say:on we go]]").status != 200:
            assert time.monotonic() - died_at < TIMEOUT_SECONDS + 15
            time.sleep(STEP_SECONDS)
        # The last sign of life may be as old as a renewal when it dies, and clocks agree to about two seconds.
        assert time.monotonic() - died_at > TIMEOUT_SECONDS - 15
