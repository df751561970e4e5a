"""Somebody who is erased: what they do before, what the workers do meanwhile, and what must be left of them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import pytest
from pydantic import SecretStr

from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.erasure import Erasure
from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import ChatCleanup, UsageEvent
from minichat.providers.files import Account
from minichat.services import chat_purge, chats, erasing, provider_cleanup, reconcile_quota, reconcile_usage
from minichat.services.erase_check import Residue, residue
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import CleanupSettings, Settings, Store, current
from minichat.storage import keys, usage_ledger
from minichat.storage.persons import Whose
from tests.support.domain.builders import NOW, a_model, a_policy, new_id, unhurried
from tests.support.events.queue_access import forget
from tests.support.services.ready_files import announced, ready
from tests.support.storage.invariants import Tables

SETTINGS = unhurried(manifest_secret=SecretStr("of tests"))
RULES = Rules(SETTINGS, a_policy(a_model(general_config={"tool_support": {"file_search": True}})))
ENDING = Ending(TurnState.COMPLETED, text="fine", usage=Usage(10, 5))
ROUND = timedelta(minutes=11)
"""Longer than a form is good for, and than a dead turn is waited for."""


@dataclass
class Person:
    """A user, with a clock of their own."""

    tenant: TenantId = field(default_factory=lambda: TenantId(str(uuid4())))
    name: UserId = field(default_factory=lambda: UserId(str(uuid4())))
    now: datetime = NOW

    def call(self, after: timedelta = timedelta(seconds=1)) -> Call:
        """The next call."""
        self.now += after
        return Call(Caller(self.tenant, self.name), self.now, new_id)

    def chat(self) -> Chat:
        """A new chat."""
        return chats.create(self.call(), chats.NewChat(), RULES)

    def turn(self, chat: Chat) -> Turn:
        """A turn that runs."""
        outcome = send(self.call(), SendMessage(chat.chat_id, "hello", RequestId(str(uuid4()))), RULES)
        assert isinstance(outcome, RunningTurn)
        return outcome.turn

    def ended(self, chat: Chat) -> Turn:
        """A turn with its answer."""
        turn = self.turn(chat)
        assert finalize(self.call(), turn, ENDING, SETTINGS)
        return turn

    def file(self, chat: Chat) -> Attachment:
        """A document that its provider has; its file still waits in the bucket, too."""
        file = ready(self.call(), announced(self.call(), chat, RULES, "application/pdf", "a.pdf"))
        name = keys.upload(file.tenant_id, file.chat_id, file.attachment_id)
        bucket().put_object(Bucket=current().attachments.bucket, Key=name, Body=b"%PDF")
        return file

    def has_lived(self, chats_: int = 2) -> None:
        """So many chats, each with turns and a document, and one more whose turn runs."""
        for _ in range(chats_):
            chat = self.chat()
            self.ended(chat)
            self.ended(chat)
            self.file(chat)
        self.turn(self.chat())

    def accepted(self) -> Erasure:
        """The erasure of this person, which an administrator asks for."""
        return erasing.accept(self.call(), self.name, SETTINGS)

    def left(self, settings: Settings | None = None) -> list[Residue]:
        """What is left of this person and does not go by itself."""
        found = residue(Whose(self.tenant, self.name), settings or current(), self.now)
        return [one for one in found if one.until is None]

    def differences(self) -> list[object]:
        """What reconciliation finds in the tenant, as the command does: of turns that ended five minutes ago."""
        metered = reconcile_usage.prove(self.now - timedelta(minutes=5), self.tenant)
        return [*reconcile_quota.reconcile(self.tenant).differences, *metered.mismatches]


@dataclass
class Workers:
    """The consumers of a store's events, and a provider that deletes what it is asked to."""

    store: Store
    deleted: set[str] = field(default_factory=set)

    def work(self, person: Person) -> None:
        """Everything that has left the outbox has its effect."""
        self.book()
        for item in Tables.of(self.store).outbox:
            if item["type"] == "chat_cleanup":
                self._clean(ChatCleanup.model_validate_json(item["payload"]), person)

    def outbox(self) -> list[dict[str, Any]]:
        """Every event that was written."""
        return Tables.of(self.store).outbox

    def book(self) -> None:
        """Usage enters the ledger."""
        for item in Tables.of(self.store).outbox:
            if item["queue"] == "usage":
                event = UsageEvent.model_validate_json(item["payload"])
                usage_ledger.book(event, item["sk"], retention_days=SETTINGS.quota.retention_days)

    def _clean(self, event: ChatCleanup, person: Person) -> None:
        means: Any = provider_cleanup.CleanupDeps(None, CleanupSettings(), lambda: person.call().now)  # type: ignore[arg-type]  # Account is patched
        try:
            chat_purge.expire(event, SETTINGS, person.call().now, new_id)
        except chat_purge.StillRunning:
            return
        where = TenantId(event.tenant_id), ChatId(event.chat_id)
        provider_cleanup.clean_chat_resources(*where, means, ends_at=person.now + timedelta(days=1))


def gone_on(person: Person, erasure: Erasure) -> erasing.Stage:
    """The erasure, taken as far as it goes now."""
    deps = erasing.ErasingDeps(SETTINGS, lambda: person.call().now, new_id)
    return erasing.go_on(person.tenant, erasure.erasure_id, deps, ends_at=person.now + timedelta(days=1))


def erased(person: Person, erasure: Erasure, workers: Workers, *, rounds: int = 6) -> Erasure:
    """The erasure, complete, with the workers at work beside it."""
    for _ in range(rounds):
        if gone_on(person, erasure) == "complete":
            return erasing.shown(person.tenant, erasure.erasure_id)
        workers.work(person)
        person.now += ROUND
    pytest.fail(f"it waits for {erasing.shown(person.tenant, erasure.erasure_id).progress.waits_for}")


@contextmanager
def workers_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Workers, with a bucket that this process uses, and its children too."""
    made = Workers(store)
    name = f"uploads-{uuid4().hex[:12]}"
    monkeypatch.setenv("MINICHAT_ATTACHMENTS__BUCKET", name)
    monkeypatch.setenv("MINICHAT_ATTACHMENTS__ENDPOINT", str(store.endpoint))
    forget()
    bucket().create_bucket(Bucket=name)

    def delete(_: Account, *about: str) -> None:
        made.deleted.add(about[-1])

    monkeypatch.setattr(Account, "find_files", lambda *_: [])
    monkeypatch.setattr(Account, "take_out", lambda *_: None)
    for called in ("delete_file", "delete_vector_store"):
        monkeypatch.setattr(Account, called, delete)
    yield made
    forget()


def bucket() -> Any:
    """A client of the bucket's engine that is not the product's."""
    return boto3.client("s3", endpoint_url=os.environ["MINICHAT_ATTACHMENTS__ENDPOINT"], region_name="us-east-1")


def told(person: Person, erasure: Erasure, store: Store) -> str:
    """What a process of its own needs to go on with an erasure (`erasing_process`)."""
    about = {"tenant": person.tenant, "name": person.name, "now": person.now.isoformat()}
    return json.dumps({**about, "erasure": erasure.erasure_id, "store": store.model_dump()})
