"""What a provider may still have of deleted chats: it is known until it is gone, however late, and whoever died."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import boto3
import pytest

from functions.chat_cleanup import handler as chat_cleanup
from minichat import moment
from minichat.domain.attachment import Attachment, VectorStore
from minichat.domain.chat import Chat
from minichat.domain.cleanup import CleanupOutcome, CleanupStatus, Failure, after_attempt
from minichat.domain.identity import ChatId, RequestId, TenantId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.events import sqs
from minichat.events.payloads import ChatCleanup
from minichat.providers.files import Account
from minichat.services import attachments as service
from minichat.services import chat_purge, chats, provider_cleanup
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.provider_leftovers import leftovers, try_again
from minichat.services.redrive import redrive
from minichat.services.send import send
from minichat.settings import CleanupSettings, Store, current
from minichat.storage import attachment_steps, keys, transact, vector_stores
from minichat.storage.items import connect
from minichat.storage.transact import LEAST_ATTEMPTS, commit
from tests.support.domain.builders import a_call, a_model, a_policy, new_id, unhurried
from tests.support.events.queue_access import Handler, QueueAccess, invocation, reason
from tests.support.services.ready_files import announced, ready, stored
from tests.support.storage.faults import answered_instead, refused, sqs_hook
from tests.support.storage.invariants import Tables

RULES = Rules(unhurried(), a_policy(a_model(general_config={"tool_support": {"file_search": True}})))
GRACE = timedelta(days=RULES.settings.retention.deleted_chats_days)
DOWN = Failure("status 503", may_pass=True)


@dataclass
class Provider:
    """Deletes what it is asked to, but no files while those are `down`; has files that only their names lead to."""

    down: Failure | None = None
    deleted: list[str] = field(default_factory=list)
    unnoted: list[str] = field(default_factory=list)

    def take_out(self, *_: str) -> Failure | None:
        return self.down

    def delete_file(self, *about: str) -> Failure | None:
        if self.down is None:
            self.deleted.append(about[-1])
        return self.down

    def delete_vector_store(self, *about: str) -> None:
        self.deleted.append(about[-1])


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    made = Provider()
    monkeypatch.setattr(Account, "find_files", lambda *_: made.down or list(made.unnoted))
    for name in ("take_out", "delete_file", "delete_vector_store"):
        monkeypatch.setattr(Account, name, getattr(made, name))
    return made


def means(provider: Provider, clock: Callable[[], datetime] = lambda: a_call().now) -> provider_cleanup.CleanupDeps:
    """The means, with a single attempt for each attachment."""
    return provider_cleanup.CleanupDeps(provider, CleanupSettings(max_attempts=1), clock)  # type: ignore[arg-type]  # as far as it is asked


def a_chat() -> Chat:
    return chats.create(a_call(), chats.NewChat(), RULES)


def a_document(chat: Chat) -> Attachment:
    """A document that its provider has, in the chat's store."""
    attachment = ready(a_call(), announced(a_call(), chat, RULES, "application/pdf", "a.pdf"))
    store = VectorStore(chat.tenant_id, chat.chat_id, "openai", attachment.vector_store_id)
    commit([vector_stores.put(store)], token=new_id(a_call().now))
    return attachment


def on_its_way(chat: Chat, *, now: datetime | None = None, held_for: int = 300) -> Attachment:
    """An attachment that a worker has, for so many seconds."""
    attachment = announced(a_call(), chat, RULES, "application/pdf", "a.pdf")
    now = now or a_call().now
    assert attachment_steps.take(attachment, "w", now=now, until=now + timedelta(seconds=held_for))
    return stored(attachment)


def deleted(chat: Chat) -> ChatCleanup:
    """The event of the chat's deletion."""
    call = a_call()
    chats.delete(call, chat.chat_id)
    return chats.to_be_cleaned(chat, call.now, new_id(call.now))


def expire(event: ChatCleanup) -> int:
    return chat_purge.expire(event, RULES.settings, a_call().now, new_id)


def clean(chat: Chat, means: provider_cleanup.CleanupDeps, *, redriven: bool = False) -> CleanupOutcome:
    forever = a_call().now + timedelta(days=365)
    return provider_cleanup.clean_chat_resources(
        chat.tenant_id, chat.chat_id, means, ends_at=forever, redriven=redriven
    )


def ends(store: Store, chat_id: ChatId) -> dict[str, int]:
    """When each item of a chat expires, by the beginning of its key."""
    found = [item for item in Tables.of(store).conversations if item["pk"].endswith(chat_id)]
    return {item["sk"].split("#")[0]: int(item["expires_at"]) for item in found}


def a_month_later(store: Store) -> None:
    """Everything that has expired is removed, as DynamoDB does at any time after."""
    then = int((a_call().now + GRACE + timedelta(days=1)).timestamp())
    table = boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(
        store.conversation_table
    )
    for item in Tables.of(store).conversations:
        if item.get("expires_at", then) < then:
            table.delete_item(Key={"pk": item["pk"], "sk": item["sk"]})


def test_what_leads_to_a_file_expires_with_its_chat_only_once_the_file_is_gone(
    store: Store, provider: Provider
) -> None:
    chat = a_chat()
    attachment = a_document(chat)
    event = deleted(chat)
    at = int((event.chat_deleted_at + GRACE).timestamp())
    later = at + int(chat_purge.KEPT_UNCLEANED.total_seconds())
    expire(event)
    assert ends(store, chat.chat_id) == {"ATT": later, "CHAT": later, "READY": at, "VS": later}
    assert expire(event) == 0, "what has its time is left alone"
    provider.down = DOWN
    assert clean(chat, means(provider)) is CleanupOutcome.FAILED
    assert chat_purge.expire_cleaned(event, RULES.settings) == 1
    assert ends(store, chat.chat_id) == {"ATT": later, "CHAT": later, "READY": at, "VS": at}
    provider.down = None
    assert clean(chat, means(provider), redriven=True) is CleanupOutcome.DONE
    assert provider.deleted == [attachment.vector_store_id, attachment.provider_file_id]
    assert chat_purge.expire_cleaned(event, RULES.settings) == 2
    assert ends(store, chat.chat_id) == dict.fromkeys(("ATT", "CHAT", "READY", "VS"), at)


def test_an_attachment_that_was_cleaned_up_before_its_chat_expires_with_it(store: Store, provider: Provider) -> None:
    chat = a_chat()
    attachment = ready(a_call(), announced(a_call(), chat, RULES, "image/png", "a.png"))
    service.delete(a_call(), chat.chat_id, attachment.attachment_id)
    event = service.to_be_cleaned(stored(attachment), a_call().now)
    assert provider_cleanup.clean_attachment(event, means(provider)) is CleanupOutcome.DONE
    gone = deleted(chat)
    expire(gone)
    assert set(ends(store, chat.chat_id).values()) == {int((gone.chat_deleted_at + GRACE).timestamp())}


def test_a_cleanup_that_failed_is_redriven_a_month_later_and_finds_its_file(store: Store, provider: Provider) -> None:
    chat = a_chat()
    attachment = a_document(chat)
    expire(deleted(chat))
    provider.down = DOWN
    assert clean(chat, means(provider)) is CleanupOutcome.FAILED
    provider.down = None
    assert clean(chat, means(provider)) is CleanupOutcome.FAILED, "a message that comes twice begins nothing anew"
    assert attachment.provider_file_id not in provider.deleted
    a_month_later(store)
    assert clean(chat, means(provider), redriven=True) is CleanupOutcome.DONE
    assert attachment.provider_file_id in provider.deleted
    assert clean(chat, means(provider), redriven=True) is CleanupOutcome.DONE


def test_a_redriven_attempt_that_fails_again_has_all_of_its_attempts_before_it(
    store: Store, provider: Provider
) -> None:
    chat = a_chat()
    attachment = a_document(chat)
    service.delete(a_call(), chat.chat_id, attachment.attachment_id)
    event = service.to_be_cleaned(stored(attachment), a_call().now)
    provider.down = DOWN
    patient = provider_cleanup.CleanupDeps(provider, CleanupSettings(max_attempts=2), lambda: a_call().now)  # type: ignore[arg-type]
    outcomes = [provider_cleanup.clean_attachment(event, patient) for _ in range(3)]
    assert outcomes == [CleanupOutcome.PENDING, CleanupOutcome.FAILED, CleanupOutcome.ALREADY_TERMINAL]
    outcomes = [provider_cleanup.clean_attachment(event, patient, redriven=True) for _ in range(2)]
    assert outcomes == [CleanupOutcome.PENDING, CleanupOutcome.FAILED]
    now = stored(attachment).cleanup
    assert (now.status, now.attempts, now.last_error) == (CleanupStatus.FAILED, 2, "vector store: status 503")


@pytest.mark.parametrize("claim", ["upload_begins", "enters_store", "claim", "ready"])
def test_nobody_begins_anything_at_a_provider_for_a_chat_that_is_deleted(store: Store, claim: str) -> None:
    chat = a_chat()
    attachment = on_its_way(chat)
    if claim != "upload_begins":
        assert attachment_steps.uploaded(attachment, "w", "file-1")
        attachment = stored(attachment)
    deleted(chat)
    token = new_id(a_call().now)
    before = Tables.of(store)
    claimed = {
        "upload_begins": lambda: attachment_steps.upload_begins(attachment, "w", a_call().now, token=token),
        "enters_store": lambda: attachment_steps.enters_store(attachment, "w", "vs-1", token=token),
        "claim": lambda: vector_stores.claim(a_claim(chat), attachment, "w", token=token),
        "ready": lambda: attachment_steps.ready(attachment, "w", None, token=token),
    }[claim]()
    assert claimed is False
    assert Tables.of(store) == before


def a_claim(chat: Chat) -> VectorStore:
    now = a_call().now
    until = now + timedelta(seconds=60)
    return VectorStore(chat.tenant_id, chat.chat_id, "openai", claimed_by="w", claimed_at=now, claimed_until=until)


def test_what_was_made_when_the_chat_was_deleted_is_noted_and_so_cleaned_up(store: Store, provider: Provider) -> None:
    chat = a_chat()
    attachment, claim, call = on_its_way(chat), a_claim(chat), a_call()
    assert attachment_steps.upload_begins(attachment, "w", call.now, token=new_id(call.now))
    assert vector_stores.claim(claim, attachment, "w", token=new_id(call.now))
    expire(deleted(chat))
    assert attachment_steps.uploaded(attachment, "w", "file-1")
    assert vector_stores.name(claim, "w", "vs-1")
    assert clean(chat, means(provider)) is CleanupOutcome.DONE
    assert provider.deleted == ["file-1", "vs-1"]


def test_a_file_that_nobody_lived_to_note_is_cleaned_up_once_nobody_can_be_sending_it(
    store: Store, provider: Provider
) -> None:
    chat, began = a_chat(), a_call().now
    attachment = on_its_way(chat, now=began)
    assert attachment_steps.upload_begins(attachment, "w", began, token=new_id(began))  # and its worker dies
    provider.unnoted.append("file-1")
    expire(deleted(chat))
    held, free = (means(provider, lambda at=began + timedelta(seconds=after): at) for after in (299, 300))  # type: ignore[misc]
    assert clean(chat, held) is CleanupOutcome.PENDING
    assert stored(attachment).cleanup.status is None, "waiting is no attempt"
    assert provider.deleted == []
    assert clean(chat, free) is CleanupOutcome.DONE
    assert provider.deleted == ["file-1"]


def test_a_file_that_is_sent_while_its_attachment_is_cleaned_up_does_not_count_as_gone(store: Store) -> None:
    chat = a_chat()
    seen = on_its_way(chat)
    call = a_call()
    assert attachment_steps.upload_begins(seen, "w", call.now, token=new_id(call.now))
    done = after_attempt(seen.cleanup, None, max_attempts=1, at=call.now)[0]
    assert not attachment_steps.settle(seen, done)
    assert attachment_steps.settle(stored(seen), done)


def test_operators_see_what_is_left_and_have_it_tried_again(
    store: Store, provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, alone, unheard_of, living = a_chat(), a_chat(), a_chat(), a_chat()
    document, single = a_document(whole), a_document(alone)
    a_document(living)
    provider.down = DOWN
    expire(deleted(whole))
    # The clock goes on by a second with each look: time for the attachment, and none for the store.
    soon = a_call().now + timedelta(seconds=2)
    provider_cleanup.clean_chat_resources(whole.tenant_id, whole.chat_id, means(provider), ends_at=soon)
    service.delete(a_call(), alone.chat_id, single.attachment_id)
    provider_cleanup.clean_attachment(service.to_be_cleaned(stored(single), a_call().now), means(provider))
    deleted(unheard_of)  # and the message is lost
    now = a_call().now
    found = leftovers(now)
    told = [(one.chat_id, one.what, one.attempts, one.reason) for one in found]
    assert told == [
        (whole.chat_id, f"attachment {document.attachment_id}", 1, "vector store: status 503"),
        (whole.chat_id, "vector store at openai", 0, None),
        (alone.chat_id, f"attachment {single.attachment_id}", 1, "vector store: status 503"),
        (unheard_of.chat_id, "chat", 0, None),
    ]
    assert leftovers(now, TenantId(new_id(now))) == []
    assert leftovers(found[0].deleted_at) == []
    with functions_connected(store, monkeypatch, tmp_path) as access:
        sent = list(try_again(found, access.settings, now, new_id))
        ids = [whole.chat_id, alone.chat_id, unheard_of.chat_id]
        assert [(one.chat_id, taken) for one, taken in sent] == [(chat_id, True) for chat_id in ids]
        assert len(access.receive(access.settings.urls["attachment-cleanup"])) == 1
        provider.down = None
        monkeypatch.setattr(chat_cleanup, "_means", means(provider, moment.now))
        assert handled(access) == []
    assert [one.chat_id for one in leftovers(now)] == [alone.chat_id]


def spoilt(store: Store, key: keys.Key, name: str) -> None:
    """Makes an item one that this version cannot read."""
    table = boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(
        store.conversation_table
    )
    table.update_item(
        Key=key._asdict(),
        UpdateExpression="SET #name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": "of a later version"},
    )


def test_an_attachment_that_cannot_be_read_keeps_no_other_from_its_cleanup(store: Store, provider: Provider) -> None:
    chat = a_chat()
    strange, *others = [a_document(chat)] + [
        ready(a_call(), announced(a_call(), chat, RULES, "application/pdf", f"{n}.pdf")) for n in range(3)
    ]
    event = deleted(chat)
    expire(event)
    spoilt(store, keys.attachment(chat.tenant_id, chat.chat_id, strange.attachment_id), "status")
    assert clean(chat, means(provider)) is CleanupOutcome.PENDING
    assert {stored(one).cleanup.status for one in others} == {CleanupStatus.DONE}
    # It waits in the table, and is told of, but hides nothing of what else is left over.
    assert [one.what for one in leftovers(a_call().now)] == ["vector store at openai"]


def test_an_attachment_whose_cleanup_cannot_be_noted_keeps_no_other_from_its_own(
    store: Store, provider: Provider
) -> None:
    chat = a_chat()
    both = [a_document(chat), ready(a_call(), announced(a_call(), chat, RULES, "application/pdf", "b.pdf"))]
    expire(deleted(chat))
    with transact.patience(0), answered_instead("UpdateItem", [refused("ThrottlingException")] * LEAST_ATTEMPTS):
        assert clean(chat, means(provider)) is CleanupOutcome.PENDING
    assert sorted(str(stored(one).cleanup.status) for one in both) == ["None", "done"]
    assert clean(chat, means(provider)) is CleanupOutcome.DONE


@pytest.mark.parametrize("refusal", ["ThrottlingException", "ValidationException"])
def test_an_item_that_cannot_be_given_its_time_keeps_none_of_the_others_and_no_file(
    store: Store, provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: str
) -> None:
    chat = a_chat()
    document = a_document(chat)
    for _ in range(3):
        running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(new_id(a_call().now))), RULES)
        assert isinstance(running, RunningTurn)
        finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), RULES.settings)
    event, handler = deleted(chat), cast(Handler, chat_cleanup.handler)
    monkeypatch.setattr("minichat.storage.purge.SECONDS", 0)
    monkeypatch.setattr(chat_cleanup, "_means", means(provider, moment.now))
    with functions_connected(store, monkeypatch, tmp_path) as access:
        access.send("chat-cleanup", event.payload(), group=chat.chat_id, event_id=new_id(a_call().now))
        (record,) = access.receive(access.settings.urls["chat-cleanup"])
        with answered_instead("UpdateItem", [refused(refusal)] * (LEAST_ATTEMPTS if "Thr" in refusal else 1)):
            assert handler({"Records": [record]}, invocation())["batchItemFailures"]
        items = [item for item in Tables.of(store).conversations if item["pk"].endswith(chat.chat_id)]
        unmarked = [item["sk"] for item in items if "expires_at" not in item]
        assert len([sk for sk in unmarked if not sk.startswith(("CHAT", "ATT#", "VS#"))]) == 1
        assert document.provider_file_id in provider.deleted
        assert not handler({"Records": [record]}, invocation())["batchItemFailures"]
    assert len(set(ends(store, chat.chat_id).values())) == 1


def test_what_its_queue_does_not_take_now_keeps_none_of_the_others_from_another_try(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for _ in range(3):
        deleted(a_chat())
    now = a_call().now
    with (
        functions_connected(store, monkeypatch, tmp_path) as access,
        sqs_hook("SendMessageBatch", [None, refused("RequestThrottled")]),
    ):
        sent = [taken for _, taken in try_again(leftovers(now), access.settings, now, new_id)]
    assert sent == [True, False, True]


def test_a_chat_with_a_file_that_stays_is_a_dead_letter_and_its_redrive_deletes_the_file(
    store: Store, provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chat = a_chat()
    attachment = a_document(chat)
    event = deleted(chat)
    provider.down = DOWN
    with functions_connected(store, monkeypatch, tmp_path) as access:
        monkeypatch.setattr(chat_cleanup, "_means", means(provider, moment.now))
        access.send("chat-cleanup", event.payload(), group=chat.chat_id, event_id=new_id(a_call().now))
        assert handled(access) == []
        (letter,) = access.receive(access.settings.dead_letters["chat-cleanup"], VisibilityTimeout=0)
        assert "may keep a file" in reason(letter)
        provider.down = None
        far_ahead = a_call().now + timedelta(days=9999)
        assert [fate for _, fate in redrive("chat-cleanup", access.settings, far_ahead)] == ["sent"]
        assert handled(access) == []
        assert access.dead("chat-cleanup") == []
    assert attachment.provider_file_id in provider.deleted
    assert set(ends(store, chat.chat_id).values()) == {int((event.chat_deleted_at + GRACE).timestamp())}


class functions_connected:
    """Functions of this process use queues of this test, for the time of a `with`."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, audit: Path) -> None:
        self._store, self._monkeypatch = store, monkeypatch
        self._access = QueueAccess.made_at(str(store.endpoint), store.region)
        self._environment = {**self._access.environment, "MINICHAT_AUDIT__SINK": str(audit)}

    def __enter__(self) -> QueueAccess:
        for name, value in self._environment.items():
            self._monkeypatch.setenv(name, value)
        current.cache_clear()
        sqs.connect(current())
        connect(self._store)
        return self._access

    def __exit__(self, *_: object) -> None:
        current.cache_clear()


def handled(access: QueueAccess) -> list[str]:
    """Has the chats' cleanup handle everything that waits; what has to come again."""
    failed: list[str] = []
    url = access.settings.urls["chat-cleanup"]
    while records := access.receive(url):
        handler: Any = chat_cleanup.handler
        answer = handler({"Records": records}, invocation())
        failed += [one["itemIdentifier"] for one in answer["batchItemFailures"]]
        for record in records:
            access.client.delete_message(QueueUrl=url, ReceiptHandle=record["receiptHandle"])
    return failed
