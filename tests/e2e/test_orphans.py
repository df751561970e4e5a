"""A server that is killed in the middle of a stream, and what becomes of its turn."""

import os
import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from minichat.local.schedules import Schedule, scheduled
from minichat.local.tables import load_template
from minichat.settings import Store
from tests.conftest import ROOT, running_stack
from tests.support.http.client import Stack, User
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations


def _killed_in_mid_stream(stack: Stack, user: User) -> tuple[str, str]:
    """The chat and the turn of a stream whose server was killed after its first sign of life."""
    chat_id, hold = user.new_chat(), uuid4().hex
    body = {"content": f"[[words:3]][[hold:{hold}]]"}
    with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
        turn = str(next(events).data["request_id"])
        assert next(events).name == "delta"
        _wait_for_a_sign_of_life(stack, turn)
        os.kill(stack.about["pids"]["the server"], signal.SIGKILL)
    return chat_id, turn


def _wait_for_a_sign_of_life(stack: Stack, turn: str) -> None:
    while "called_at" not in _turn(Tables.of(Store(endpoint=stack.about["engine_url"])), turn):
        pass


def _turn(tables: Tables, turn: str) -> dict[str, Any]:
    return next(item for item in tables.conversations if item["sk"] == f"TURN#{turn}")


SHORTEST_TIMEOUT = {"MINICHAT_ORPHAN_WATCHDOG__TIMEOUT_SECONDS": "30"}


@pytest.mark.holds("turns.no-waiting")
def test_the_next_send_after_the_timeout_frees_a_chat_whose_server_was_killed(tmp_path: Path) -> None:
    """The engine outlives the server. No schedule is due before the minute is over: the send alone does it."""
    with running_stack(tmp_path / "engine") as first:
        shared = ["--engine", str(first.about["engine_url"]), "--provider-url", str(first.about["provider_url"])]
        with (
            # It has started before the other one dies: half a minute can be less than a start takes.
            running_stack(tmp_path / "third", *shared, environment=SHORTEST_TIMEOUT) as third,
            third.user("acme", "ann") as user,
        ):
            with running_stack(tmp_path / "second", *shared) as second, second.user("acme", "ann") as victim:
                chat_id, turn = _killed_in_mid_stream(second, victim)
                refused = user.send(chat_id, "too soon")
                assert second.process.wait(PATIENCE) == 2
            assert (refused.status, refused.problem["code"]) == (409, "generation_in_progress")
            while (answer := user.send(chat_id, "[[say:alive]]")).status == 409:
                assert answer.problem["code"] == "generation_in_progress"
            assert answer.text == "alive"
            status = user.turn(chat_id, turn).json()
            assert (status["state"], status["error_code"]) == ("error", "orphan_timeout")
        tables = Tables.of(Store(endpoint=first.about["engine_url"]))
        assert violations(tables) == []
        assert _turn(tables, turn)["settled"] == "estimated"


@pytest.mark.holds("turns.watchdog")
def test_the_template_schedules_the_watchdog_every_minute() -> None:
    handler = "functions.orphan_watchdog.handler.handler"
    assert Schedule("OrphanWatchdogFunction", handler, 60, timeout=50) in scheduled(
        load_template(ROOT / "template.yaml")
    )


@pytest.mark.skipif("ORPHANS" not in os.environ, reason="takes up to two minutes: `make orphans`")
def test_the_schedule_ends_a_dead_turn_that_nobody_asks_for(tmp_path: Path) -> None:
    with running_stack(tmp_path / "engine", environment=SHORTEST_TIMEOUT) as first:
        shared = ["--engine", str(first.about["engine_url"]), "--provider-url", str(first.about["provider_url"])]
        with running_stack(tmp_path / "keys", *shared) as second, second.user("acme", "ann") as user:
            _, turn = _killed_in_mid_stream(second, user)
        store = Store(endpoint=first.about["engine_url"])
        while (dead := _turn(Tables.of(store), turn))["state"] == "running":
            pass
        assert (dead["error"], dead["settled"]) == ("orphan_timeout", "estimated")
