"""The erasure of a user or a tenant: everything goes, the sums stay, and whoever is killed has half done nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from minichat.domain.chat import Chat
from minichat.domain.erasure import BeingErased, Erasure, ErasureRunning
from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import UsageEvent
from minichat.providers.files import Account
from minichat.services import attachments, chat_purge, chats, erasing, provider_cleanup, reconcile_quota, reconcile_usage
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import CleanupSettings, Store
from minichat.storage import keys, objects, scan, usage_ledger
from tests.support.domain.builders import NOW, a_model, a_policy, new_id, unhurried
from tests.support.services.ready_files import announced, ready
from tests.support.storage.invariants import Tables

SETTINGS = unhurried(manifest_secret=SecretStr("of tests"))
RULES = Rules(SETTINGS, a_policy(a_model(general_config={"tool_support": {"file_search": True}})))
ENDING = Ending(TurnState.COMPLETED, text="fine", usage=Usage(10, 5))


@dataclass
class Person:
    """A user, with a clock of their own."""

    tenant: TenantId = field(default_factory=lambda: TenantId(str(uuid4())))
    name: UserId = field(default_factory=lambda: UserId(str(uuid4())))
    now: datetime = NOW

    def call(self, after: timedelta = timedelta(seconds=1)) -> Call:
        self.now += after
        return Call(Caller(self.tenant, self.name), self.now, new_id)

    def chat(self) -> Chat:
        return chats.create(self.call(), chats.NewChat(), RULES)

    def turn(self, chat: Chat) -> Turn:
        outcome = send(self.call(), SendMessage(chat.chat_id, "hello", RequestId(str(uuid4()))), RULES)
        assert isinstance(outcome, RunningTurn)
        return outcome.turn

    def ended(self, chat: Chat) -> Turn:
        turn = self.turn(chat)
        assert finalize(self.call(), turn, ENDING, SETTINGS)
        return turn

    def file(self, chat: Chat) -> None:
        ready(self.call(), announced(self.call(), chat, RULES, "application/pdf", "a.pdf"))


@dataclass
class World:
    """Consumers, a provider that deletes what it is asked to, and a bucket."""

    store: Store
    deleted_objects: set[str] = field(default_factory=set)

    def means(self, person: Person) -> erasing.ErasingDeps:
        return erasing.ErasingDeps(SETTINGS, lambda: person.call().now, new_id)

    def consumed(self, person: Person) -> None:
        """Everything that waits in the outbox has its effect."""
        for item in Tables.of(self.store).outbox:
            if item["queue"] == "usage":
                event = UsageEvent.model_validate_json(item["payload"])
                usage_ledger.book(event, item["sk"], retention_days=400)
        means = provider_cleanup.CleanupDeps(_provider(), CleanupSettings(), lambda: person.call().now)
        for item in Tables.of(self.store).conversations:
            if item["sk"] == "CHAT" and "deleted_at" in item:
                chat = chats.get  # noqa: F841
                where = keys.chat_of(item["pk"])
                event = _cleanup(*where, item)
                try:
                    chat_purge.expire(event, SETTINGS, person.call().now, new_id)
                except chat_purge.StillRunning:
                    continue
                provider_cleanup.clean_chat_resources(*where, means, ends_at=person.now + timedelta(hours=1))

    def erase(self, person: Person, erasure: Erasure, *, most: int = 30) -> Erasure:
        for _ in range(most):
            stage = erasing.go_on(
                person.tenant, erasure.erasure_id, self.means(person), ends_at=person.now + timedelta(days=1)
            )
            if stage == "complete":
                return erasing.shown(person.tenant, erasure.erasure_id)
            self.consumed(person)
            person.now += timedelta(minutes=11)
        pytest.fail(f"it waits for {erasing.shown(person.tenant, erasure.erasure_id).progress.waits_for}")


def _cleanup(tenant_id: TenantId, chat_id: ChatId, item: dict[str, Any]) -> Any:
    from minichat.events.payloads import ChatCleanup

    return ChatCleanup(
        tenant_id=tenant_id, chat_id=chat_id, user_id=item["user"], system_request_id="s", chat_deleted_at=NOW
    )


def _provider() -> Any:
    return object()


@pytest.fixture
def world(store: Store, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(store)
    monkeypatch.setattr(Account, "find_files", lambda *_: [])
    for name in ("take_out", "delete_file", "delete_vector_store"):
        monkeypatch.setattr(Account, name, lambda *_: None)
    monkeypatch.setattr(objects, "delete", lambda key: made.deleted_objects.add(key))
    return made


def test_nothing_is_left_of_a_user_but_sums_without_a_name(world: World) -> None:
    person, other = Person(), Person()
    other.tenant = person.tenant
    for one in (person, other):
        chat = one.chat()
        one.ended(chat)
        one.ended(chat)
        one.file(chat)
        one.turn(one.chat())
    world.consumed(person)
    erasure = erasing.accept(person.call(), person.name, SETTINGS)
    done = world.erase(person, erasure)
    print(done)
    left = [item for item in Tables.of(world.store).conversations if person.name in str(item)]
    assert left == []
    assert reconcile_quota.reconcile(person.tenant).differences == []
    assert reconcile_usage.prove(person.now, person.tenant).mismatches == []
