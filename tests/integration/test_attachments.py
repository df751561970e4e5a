"""Attachments against the engine: limits hold whoever comes at once, and what is deleted is deleted once."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from minichat.domain.attachment import Attachment, AttachmentStatus
from minichat.domain.chat import Chat
from minichat.domain.errors import (
    AttachmentLocked,
    AttachmentNotFound,
    ChatNotFound,
    FileTooLarge,
    Forbidden,
    IdempotencyKeyConflict,
    InvalidRequest,
    QuotaExceeded,
    ServiceUnavailable,
    UnsupportedFileType,
)
from minichat.domain.identity import AttachmentId, ChatId, UserId
from minichat.services import attachments as service
from minichat.services import chats
from minichat.services.policy_in_force import Rules
from minichat.settings import Attachments, Store
from minichat.storage import attachment_steps, attachments, keys, objects, references
from minichat.storage.items import ChatItem, batch_get
from minichat.storage.transact import commit
from tests.support.domain.builders import a_call, a_caller, a_policy, new_id, unhurried
from tests.support.storage.invariants import Tables

MB = 1024 * 1024
RULES = Rules(unhurried(), a_policy())
PDF = b"%PDF-1.7\n"


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The bucket of uploads."""
    kept: dict[str, bytes] = {}
    monkeypatch.setattr(objects, "put", lambda key, content, _: kept.update({key: content}))
    return kept


def a_chat() -> Chat:
    return chats.create(a_call(), chats.NewChat(), RULES)


def a_pdf(size: int = len(PDF)) -> service.NewFile:
    return service.NewFile("a.pdf", "application/pdf", size)


def announced(chat: Chat, file: service.NewFile | None = None, rules: Rules = RULES) -> Attachment:
    return service.announce(a_call(), chat, file or a_pdf(), rules)[0]


def counted(chat_id: ChatId) -> tuple[int, int]:
    """Documents and bytes, as the head counts them."""
    key = keys.chat(a_caller().tenant_id, chat_id)
    head = ChatItem.from_raw_data(dict(batch_get([key])[key]))
    return int(head.documents or 0), int(head.upload_bytes or 0)


def stored(attachment: Attachment) -> Attachment:
    found = attachments.read(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)
    assert found is not None
    return found


def at_once(count: int, do: Callable[[int], object]) -> list[object]:
    """What each of so many calls gave or raised."""

    def one(number: int) -> object:
        try:
            return do(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def failed(attachment: Attachment) -> None:
    now = a_call().now
    assert attachment_steps.take(attachment, "w", now=now, until=now)
    assert attachment_steps.failed(attachment, "w", "upload_failed", nothing_left=True, token=new_id(now))


def test_an_attachment_is_stored_and_counted(store: Store, bucket: dict[str, bytes]) -> None:
    chat = a_chat()
    made = service.add(a_call(), chat, replace(a_pdf(), filename="../x/a.pdf"), PDF, RULES)
    assert stored(made) == made
    assert (made.status, made.filename, made.kind, made.size_bytes) == ("pending", "a.pdf", "document", len(PDF))
    assert bucket == {f"{chat.tenant_id}/{chat.chat_id}/{made.attachment_id}": PDF}
    assert counted(chat.chat_id) == (1, len(PDF))


def test_of_a_hundred_uploads_at_49_of_50_documents_one_gets_in(store: Store) -> None:
    chat = a_chat()
    for _ in range(49):
        announced(chat)
    answers = at_once(100, lambda _: announced(chat))
    won = [one for one in answers if isinstance(one, Attachment)]
    lost = [one for one in answers if isinstance(one, QuotaExceeded)]
    assert (len(won), len(lost)) == (1, 99), [one for one in answers if one not in won and one not in lost][:3]
    assert {(one.limit.scope, "50" in str(one)) for one in lost} == {("uploads", True)}
    assert counted(chat.chat_id) == (50, 50 * len(PDF))
    assert len(list(attachments.of_chat(chat.tenant_id, chat.chat_id))) == 50


def test_of_twenty_uploads_at_once_as_many_get_in_as_have_room(store: Store) -> None:
    rules = Rules(unhurried(attachments=Attachments(max_total_mb_per_chat=10)), a_policy())
    chat = a_chat()
    answers = at_once(20, lambda _: announced(chat, a_pdf(3 * MB), rules))
    assert sum(isinstance(one, Attachment) for one in answers) == 3
    assert {(type(one), str(10 * MB) in str(one)) for one in answers if not isinstance(one, Attachment)} == {
        (QuotaExceeded, True)
    }
    assert counted(chat.chat_id) == (3, 9 * MB)


def test_images_count_by_their_bytes_alone(store: Store) -> None:
    rules = Rules(unhurried(attachments=Attachments(max_documents_per_chat=1)), a_policy())
    chat = a_chat()
    announced(chat, rules=rules)
    for _ in range(3):
        announced(chat, service.NewFile("a.png", "image/png", 10), rules)
    assert counted(chat.chat_id) == (1, len(PDF) + 30)


def test_a_refused_file_leaves_nothing(store: Store, bucket: dict[str, bytes]) -> None:
    chat = a_chat()
    wrong: list[tuple[service.NewFile, bytes, type[Exception]]] = [
        (a_pdf(), b"MZ\x90\0....", UnsupportedFileType),
        (replace(a_pdf(), filename="a.exe", content_type="application/x-msdownload"), PDF, UnsupportedFileType),
        (replace(a_pdf(), size_bytes=0), b"", InvalidRequest),
        (replace(a_pdf(), size_bytes=26 * MB), PDF, FileTooLarge),
        (service.NewFile("a.png", "image/png", 6 * MB), b"", FileTooLarge),
        (service.NewFile("a.xlsx", "application/octet-stream", 9), b"", InvalidRequest),
    ]
    for file, content, refusal in wrong:
        with pytest.raises(refusal):
            service.add(a_call(), chat, file, content, RULES)
    assert list(attachments.of_chat(chat.tenant_id, chat.chat_id)) == []
    assert (counted(chat.chat_id), bucket) == ((0, 0), {})


def test_nothing_is_given_to_a_chat_that_is_gone(store: Store) -> None:
    chat = a_chat()
    chats.delete(a_call(), chat.chat_id)
    with pytest.raises(ChatNotFound):
        announced(chat)
    assert list(attachments.of_chat(chat.tenant_id, chat.chat_id)) == []


def test_a_deletion_hides_uncounts_and_tells_once(store: Store) -> None:
    chat = a_chat()
    attachment = announced(chat)
    for _ in range(2):
        service.delete(a_call(), chat.chat_id, attachment.attachment_id)
    gone = stored(attachment)
    assert gone.deleted_at is not None
    assert gone.cleanup.status == "pending"
    assert counted(chat.chat_id) == (0, 0)
    told = sorted(event["type"] for event in Tables.of(store).outbox)
    assert told == ["attachment_cleanup", "attachment_delete", "attachment_expected"]
    with pytest.raises(AttachmentNotFound):
        service.get(a_call(), chat.chat_id, attachment.attachment_id)


def test_deletions_at_once_uncount_once(store: Store) -> None:
    chat = a_chat()
    attachment = announced(chat)
    announced(chat)
    answers = at_once(20, lambda _: service.delete(a_call(), chat.chat_id, attachment.attachment_id))
    assert answers == [None] * 20
    assert counted(chat.chat_id) == (1, len(PDF))


def test_a_failed_attachment_has_left_the_counters_already(store: Store) -> None:
    chat = a_chat()
    attachment = announced(chat)
    failed(attachment)
    assert counted(chat.chat_id) == (0, 0)
    seen = stored(attachment)
    assert (seen.status, seen.error_code) == (AttachmentStatus.FAILED, "upload_failed")
    service.delete(a_call(), chat.chat_id, attachment.attachment_id)
    assert counted(chat.chat_id) == (0, 0)


def test_what_a_message_was_sent_with_is_locked(store: Store) -> None:
    chat = a_chat()
    attachment = a_ready_one(chat)
    commit(references.added(a_call(), [attachment]), token=new_id(a_call().now))
    with pytest.raises(AttachmentLocked):
        service.delete(a_call(), chat.chat_id, attachment.attachment_id)
    assert stored(attachment).references == 1
    assert stored(attachment).deleted_at is None


def test_an_attachment_is_deleted_or_sent_but_never_both(store: Store) -> None:
    for _ in range(10):
        chat = a_chat()
        attachment = a_ready_one(chat)

        def delete_or_send(number: int, attachment: Attachment = attachment) -> Any:
            if number % 2:
                return service.delete(a_call(), attachment.chat_id, attachment.attachment_id)
            return commit(references.added(a_call(), [attachment]), token=new_id(a_call().now))

        at_once(4, delete_or_send)
        now = stored(attachment)
        assert (now.deleted_at is not None) != bool(now.references)


def test_only_the_uploader_deletes(store: Store) -> None:
    chat = a_chat()
    other = Attachment(
        chat.tenant_id, chat.chat_id, AttachmentId(new_id(a_call().now)), "document", "it", uploaded_by=UserId("bob")
    )
    commit([attachments.put(other)], token=new_id(a_call().now))
    with pytest.raises(Forbidden):
        service.delete(a_call(), chat.chat_id, other.attachment_id)
    with pytest.raises(AttachmentNotFound):
        service.delete(a_call(), a_chat().chat_id, other.attachment_id)
    with pytest.raises(ChatNotFound):
        service.delete(a_call(a_caller(user=9)), chat.chat_id, other.attachment_id)


def a_ready_one(chat: Chat) -> Attachment:
    attachment = announced(chat)
    now = a_call().now
    assert attachment_steps.take(attachment, "w", now=now, until=now)
    assert attachment_steps.uploaded(attachment, "w", "file-1")
    assert attachment_steps.ready(attachment, "w", None, token=new_id(now))
    return stored(attachment)


def test_each_step_needs_the_one_before(store: Store) -> None:
    attachment = announced(a_chat())
    now = a_call().now
    assert not attachment_steps.uploaded(attachment, "w", "file-1"), "nobody took it"
    assert attachment_steps.take(attachment, "w", now=now, until=now)
    assert not attachment_steps.ready(attachment, "w", None, token=new_id(now)), "its provider has nothing"
    assert not attachment_steps.uploaded(attachment, "other", "file-1")
    assert attachment_steps.uploaded(attachment, "w", "file-1")
    assert not attachment_steps.uploaded(attachment, "w", "file-2")
    assert attachment_steps.ready(attachment, "w", None, token=new_id(now))
    assert not attachment_steps.failed(attachment, "w", "upload_failed", nothing_left=True, token=new_id(now))
    assert (stored(attachment).status, stored(attachment).provider_file_id) == ("ready", "file-1")


@pytest.mark.holds("contract.key")
def test_one_key_makes_one_attachment_however_often_it_comes(store: Store, bucket: dict[str, bytes]) -> None:
    chat = a_chat()
    file = replace(a_pdf(), idempotency_key="k")
    answers = at_once(10, lambda _: service.add(a_call(), chat, file, PDF, RULES))
    made = {one.attachment_id for one in answers if isinstance(one, Attachment)}
    assert (len(answers), len(made)) == (10, 1), answers
    assert counted(chat.chat_id) == (1, len(PDF))
    assert len(bucket) == 1
    other = service.add(a_call(), a_chat(), file, PDF, RULES)
    assert other.attachment_id not in made


def test_a_key_tells_what_became_of_its_attachment_and_brings_no_deleted_one_back(
    store: Store, bucket: dict[str, bytes]
) -> None:
    chat = a_chat()
    file = replace(a_pdf(), idempotency_key="k")
    first = service.add(a_call(), chat, file, PDF, RULES)
    bucket.clear()
    assert service.add(a_call(), chat, file, PDF, RULES) == first
    assert list(bucket.values()) == [PDF], "the first call may have died before its file was stored"
    bucket.clear()
    failed(first)
    assert service.add(a_call(), chat, file, PDF, RULES).status == "failed"
    service.delete(a_call(), chat.chat_id, first.attachment_id)
    with pytest.raises(AttachmentNotFound):
        service.add(a_call(), chat, file, PDF, RULES)
    assert bucket == {}
    file = replace(file, idempotency_key="another")
    service.delete(a_call(), chat.chat_id, announced(chat, file).attachment_id)
    with pytest.raises(AttachmentNotFound):
        announced(chat, file)


async def test_who_waits_for_a_file_looks_less_and_less_often_and_until_it_has_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, looks, paused = a_chat(), [0], list[float]()
    made = announced(chat)
    look = attachments.with_chat

    def seen(*given: Any) -> tuple[Chat | None, Attachment | None]:
        looks[0] += 1
        if looks[0] == 3:
            raise ServiceUnavailable
        if looks[0] == 7:
            failed(made)
        return look(*given)

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(attachments, "with_chat", seen)
    monkeypatch.setattr(service, "asyncio", SimpleNamespace(sleep=pause))
    assert (await service.settled(a_call(), made, 600)).status == "failed"
    assert (looks, len(paused), paused[0], paused[-1]) == ([7], 7, service.FIRST_LOOK_SECONDS, 1.0)
    assert paused == sorted(paused)


async def test_a_wait_ends_with_its_time_and_with_a_deletion(store: Store) -> None:
    chat = a_chat()
    made = announced(chat)
    assert await service.settled(a_call(), made, 0) == made
    assert await service.settled(a_call(), made, 0.3) == made
    waiting = asyncio.create_task(service.settled(a_call(), made, 600))
    await asyncio.to_thread(service.delete, a_call(), chat.chat_id, made.attachment_id)
    with pytest.raises(AttachmentNotFound):
        await asyncio.wait_for(waiting, 60)


async def test_a_wait_ends_when_the_chat_is_deleted(store: Store) -> None:
    chat = a_chat()
    waiting = asyncio.create_task(service.settled(a_call(), announced(chat), 600))
    await asyncio.to_thread(chats.delete, a_call(), chat.chat_id)
    with pytest.raises(ChatNotFound):
        await asyncio.wait_for(waiting, 60)


def test_a_key_that_comes_with_another_file_is_refused(store: Store) -> None:
    chat = a_chat()
    file = replace(a_pdf(), idempotency_key="k")
    service.add(a_call(), chat, file, PDF, RULES)
    for another, content in ((file, PDF[:-1] + b"!"), (replace(file, filename="b.pdf"), PDF)):
        with pytest.raises(IdempotencyKeyConflict):
            service.add(a_call(), chat, another, content, RULES)
    with pytest.raises(IdempotencyKeyConflict):
        announced(chat, file)
    assert counted(chat.chat_id) == (1, len(PDF))


def test_a_key_still_stands_for_its_attachment_when_the_chat_is_full(store: Store) -> None:
    rules = Rules(unhurried(attachments=Attachments(max_documents_per_chat=1)), a_policy())
    chat = a_chat()
    file = replace(a_pdf(), idempotency_key="k")
    assert announced(chat, file, rules).attachment_id == announced(chat, file, rules).attachment_id
