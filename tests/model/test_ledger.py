"""Random lives of a user's chats on a real engine: after every step every invariant of turns-and-quota 10 holds.

`MODEL_EXAMPLES` sets the size, fifty steps each: `make model` runs a long one, `make test` a short form.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from minichat.domain import errors
from minichat.domain.identity import AttachmentId, Call, ChatId, RequestId
from minichat.domain.policy import KillSwitches, LimitsByUser, Policy
from minichat.domain.settlement import Ending
from minichat.domain.text import is_blank
from minichat.domain.turn import ToolCalls, Turn, TurnState
from minichat.domain.usage import Usage
from minichat.services import attachments, chats, mutate, orphans
from minichat.services.cancel import cancel
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import InForce, Rules
from minichat.services.reconcile_quota import reconcile
from minichat.services.send import send
from minichat.settings import Quota
from minichat.storage import leases, policies
from tests.conftest import fresh_tables
from tests.support.domain.builders import (
    NOW,
    a_caller,
    a_model,
    a_policy,
    new_id,
    some_limits,
    unhurried,
)
from tests.support.services.ready_files import announced, ready
from tests.support.storage.invariants import Tables, violations

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "30"))
STEPS = 50
LIMIT = 40_000
SEARCHES = 5
FILES = 3
OVERSHOOT_PCT = 110


def some_policy(version: int, *, price: int = 3, force_standard_tier: bool = False) -> Policy:
    """Two tiers, and limits that three or four turns at once reach."""
    model: dict[str, Any] = {
        "preference": {"is_default": True},
        "max_output_tokens": 2000,
        "multimodal_capabilities": ["VISION_INPUT"],
        "general_config": {"tool_support": {"file_search": True, "web_search": True}},
        "output_tokens_credit_multiplier_micro": price * 1_000_000,
    }
    return a_policy(
        a_model(id="large", tier="premium", **model),
        a_model(**model),
        user_limits=LimitsByUser(default=some_limits(total=LIMIT, premium=LIMIT // 2)),
        kill_switches=KillSwitches(force_standard_tier=force_standard_tier),
        policy_version=version,
    )


@dataclass
class Chat:
    """What the model knows of a chat: its id, the turn whose process is still alive, if any, and its files."""

    chat_id: ChatId
    alive: Turn | None = None
    zombies: list[Turn] = field(default_factory=list)
    files: list[AttachmentId] = field(default_factory=list)


class Ledger(RuleBasedStateMachine):
    """One user with three chats; processes come and go, and time with them."""

    endpoint = ""
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.store = fresh_tables(self.endpoint)
        self.in_force = InForce(unhurried(policy_refresh_seconds=0, quota=Quota(web_search_daily_quota=SEARCHES)))
        self.now = NOW
        self.publish(some_policy(1))
        self.chats = [Chat(chats.create(self.call(), chats.NewChat(), self.going_by).chat_id) for _ in range(3)]

    @property
    def going_by(self) -> Rules:
        return self.in_force.rules_of(a_caller().tenant_id)

    def publish(self, policy: Policy) -> None:
        """Publishes through the table and lets the instances follow."""
        policies.publish(policy, at=self.now, by="model", token=new_id(self.now))
        self.in_force.look(a_caller().tenant_id, 0)

    def call(self) -> Call:
        """A call a second after the one before."""
        self.now += timedelta(seconds=1)
        return Call(a_caller(), self.now, new_id)

    @rule(
        number=st.integers(0, 2),
        text=st.text(min_size=1, max_size=40).filter(lambda text: not is_blank(text)),
        picked=st.sets(st.integers(0, FILES - 1), max_size=2),
        web_search=st.booleans(),
    )
    def sends(self, number: int, text: str, picked: set[int], web_search: bool) -> None:
        chat = self.chats[number]
        files = tuple(file for place, file in enumerate(chat.files) if place in picked)
        command = SendMessage(chat.chat_id, text, _id(), files, web_search)
        self._begins(chat, lambda: send(self.call(), command, self.going_by))

    @rule(number=st.integers(0, 2), kind=st.sampled_from(["image/png", "application/pdf"]))
    def gets_a_file(self, number: int, kind: str) -> None:
        chat = self.chats[number]
        if len(chat.files) < FILES:
            whole = chats.get(self.call(), chat.chat_id)
            file = announced(self.call(), whole, self.going_by, kind, f"a.{kind[-3:]}")
            chat.files.append(ready(self.call(), file).attachment_id)

    @rule(number=st.integers(0, 2), place=st.integers(0, FILES - 1))
    def loses_a_file(self, number: int, place: int) -> None:
        chat = self.chats[number]
        if place < len(chat.files):
            # Whether messages refer to it is counted again by the invariants.
            with suppress(errors.AttachmentLocked):
                attachments.delete(self.call(), chat.chat_id, chat.files[place])
                del chat.files[place]

    @rule(number=st.integers(0, 2), edited=st.booleans())
    def replaces_the_latest(self, number: int, edited: bool) -> None:
        chat = self.chats[number]
        target = self._latest(chat)
        if target is None:
            return
        if edited:
            command = SendMessage(chat.chat_id, "edited", _id())
            self._begins(chat, lambda: mutate.edit(self.call(), target, command, self.going_by))
        else:
            self._begins(chat, lambda: mutate.retry(self.call(), chat.chat_id, target, _id(), self.going_by))

    @rule(number=st.integers(0, 2))
    def deletes_the_latest(self, number: int) -> None:
        chat = self.chats[number]
        target = self._latest(chat)
        if target is None:
            return
        try:
            mutate.delete(self.call(), chat.chat_id, target, self.going_by.settings)
        except errors.InvalidTurnState:
            assert chat.alive is not None or chat.zombies

    @precondition(lambda self: any(chat.alive for chat in self.chats))
    @rule(
        state=st.sampled_from([TurnState.COMPLETED, TurnState.FAILED, TurnState.CANCELLED]),
        code=st.sampled_from(["provider_error", "rate_limited", "validation_error", "never_heard_of"]),
        usage=st.builds(Usage, st.integers(0, 3000), st.integers(0, 3000)),
        called=st.booleans(),
        searches=st.integers(0, 2),
    )
    def ends(self, state: TurnState, code: str, usage: Usage, called: bool, searches: int) -> None:
        chat = next(chat for chat in self.chats if chat.alive)
        assert chat.alive is not None
        ending = Ending(
            state,
            code if state is TurnState.FAILED else None,
            text="hi",
            usage=usage,
            provider_called=called,
            tool_calls=ToolCalls(web_search=min(searches, chat.alive.reserve.web_search_calls)),
        )
        finalize(self.call(), chat.alive, ending, self.going_by.settings)
        chat.alive = None

    @precondition(lambda self: any(chat.alive for chat in self.chats))
    @rule()
    def shows_a_sign_of_life(self) -> None:
        for chat in self.chats:
            if chat.alive is not None:
                leases.progress(self.call(), chat.alive, provider_called=True)

    @rule(number=st.integers(0, 2))
    def is_cancelled(self, number: int) -> None:
        chat = self.chats[number]
        running = chats.get(self.call(), chat.chat_id).running_request_id
        if running is not None:
            cancel(self.call(), chat.chat_id, running, self.going_by.settings)

    @precondition(lambda self: any(chat.alive for chat in self.chats))
    @rule()
    def crashes(self) -> None:
        chat = next(chat for chat in self.chats if chat.alive)
        assert chat.alive is not None
        chat.zombies.append(chat.alive)
        chat.alive = None

    @precondition(lambda self: any(chat.zombies for chat in self.chats))
    @rule()
    def a_zombie_wakes_up(self) -> None:
        chat = next(chat for chat in self.chats if chat.zombies)
        finalize(self.call(), chat.zombies.pop(), Ending(TurnState.COMPLETED, text="late"), self.going_by.settings)

    @rule(minutes=st.integers(1, 5))
    def time_passes_and_the_watchdog_runs(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        orphans.sweep(self.now, new_id, self.going_by.settings)
        for chat in self.chats:
            # Who gave a sign of life a moment ago still counts as running, and may wake up as any zombie.
            if chat.alive is not None:
                chat.zombies.append(chat.alive)
            chat.alive = None

    @rule(days=st.integers(1, 20))
    def a_new_day_begins(self, days: int) -> None:
        self.now = datetime.combine(self.now.date() + timedelta(days=days), self.now.timetz())

    @rule(switch=st.booleans())
    def the_policy_changes(self, switch: bool) -> None:
        version = self.going_by.policy.policy_version + 1
        self.publish(some_policy(version, price=version % 5 + 1, force_standard_tier=switch))

    @invariant()
    def every_invariant_holds(self) -> None:
        Ledger.steps += 1
        tables = Tables.of(self.store)
        assert violations(tables) == []
        for item in tables.conversations:
            if item["sk"].startswith("QUOTA#"):
                assert item.get("total_r", 0) >= 0
                # Settlement may exceed a limit only by tolerated overshoot.
                assert item.get("total", 0) * 100 <= LIMIT * OVERSHOOT_PCT
                assert all(0 <= value <= SEARCHES for name, value in item.items() if re.fullmatch(r"\d\dw", name))

    def teardown(self) -> None:
        orphans.sweep(self.now + timedelta(days=1), new_id, self.going_by.settings)
        tables = Tables.of(self.store)
        assert violations(tables) == []
        assert reconcile().differences == []
        assert all(not item.get("total_r") for item in tables.conversations), "nothing runs any more"

    def _begins(self, chat: Chat, begin: object) -> None:
        try:
            outcome = begin()  # type: ignore[operator]  # one of the closures above
        except (errors.GenerationInProgress, errors.InvalidTurnState, errors.QuotaExceeded):
            return
        assert isinstance(outcome, RunningTurn)
        chat.alive = outcome.turn

    def _latest(self, chat: Chat) -> RequestId | None:
        return chats.get(self.call(), chat.chat_id).latest_request_id


def _id() -> RequestId:
    return RequestId(str(uuid4()))


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 1200)  # twenty times what it takes on a quiet machine
@pytest.mark.holds("turns.one-running", "turns.one-settlement", "turns.books", "turns.latest", "turns.count")
def test_every_invariant_holds_after_every_step(engine: str) -> None:
    Ledger.endpoint, Ledger.steps = engine, 0
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    print(f"{Ledger.steps} steps")
    assert Ledger.steps >= EXAMPLES * STEPS // 4
