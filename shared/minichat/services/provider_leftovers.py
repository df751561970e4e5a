"""What providers may still have of deleted chats and attachments: only operators can have its cleanup tried again.

None of it expires before it is cleaned up, so it is found however late (services.chat_purge).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from minichat.domain.chat import Chat
from minichat.domain.cleanup import CleanupStatus
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import AttachmentId, ChatId, NewId, TenantId, micros
from minichat.domain.names import in_key
from minichat.events.base import Event
from minichat.events.sqs import REDRIVEN, SqsMessage, attributes_of, send_one
from minichat.observability import logger
from minichat.services import chats
from minichat.services.attachments import to_be_cleaned
from minichat.settings import Queues
from minichat.storage import attachments, keys, scan, unreadable
from minichat.storage import chats as stored_chats
from minichat.storage import vector_stores as stored_stores
from minichat.storage.keys import Raw
from minichat.storage.unreadable import Unreadable

CLEANED = timedelta(days=1)
"""How long ago something was deleted that must be gone: the attempts of its message are over."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something deleted at that instant and not cleaned up: a chat whose cleanup has not begun, a chat's vector store
    at a provider, or an attachment; how many attempts failed, and the last one's reason."""

    tenant_id: TenantId
    chat_id: ChatId
    what: str
    deleted_at: datetime
    attempts: int = 0
    reason: str | None = None
    attachment_id: AttachmentId | None = None


@dataclass(slots=True)
class Deleted:
    """The deleted items of one reading of the table, which others may share."""

    unreadable: list[Unreadable] = field(default_factory=list)
    _chats: dict[str, datetime] = field(default_factory=dict)
    _waiting: list[Raw] = field(default_factory=list)

    def noted(self, items: Iterable[Raw]) -> Iterator[Raw]:
        """The items as they come, noting each that was deleted."""
        for raw in items:
            pk, sk = keys.of(raw)
            if sk == keys.CHAT_SK and "deleted_at" in raw:
                chat = unreadable.read(raw, stored_chats.from_raw)
                if isinstance(chat, Chat) and chat.deleted_at is not None:
                    self._chats[pk] = chat.deleted_at
            if keys.is_of_chat(pk) and _may_wait(raw):
                self._waiting.append(raw)
            yield raw

    def leftovers(self, before: datetime) -> list[Leftover]:
        """Everything of it that was deleted before that instant and is not cleaned up, the oldest first."""
        found: list[Leftover] = []
        for raw in self._waiting:
            one = unreadable.read(raw, partial(_of, chat_deleted_at=self._chats.get(keys.of(raw).pk)))
            if isinstance(one, Unreadable):
                self.unreadable.append(one)
            elif one is not None and one.deleted_at < before:
                found.append(one)
        return sorted(found, key=lambda one: one.deleted_at)


def leftovers(before: datetime, tenant_id: TenantId | None = None) -> list[Leftover]:
    """Everything that was deleted before that instant and is not cleaned up, the oldest first; of a tenant, or of all.

    The table is read once. Unreadable items are logged.
    Raises ServiceUnavailable.
    """
    deleted = Deleted()
    for _ in deleted.noted(raw for raw in scan.items() if tenant_id is None or scan.is_of(raw, tenant_id)):
        pass
    found = deleted.leftovers(before)
    for one in deleted.unreadable:
        logger.error("an item to be cleaned up cannot be read", extra={"item": one.key, "reason": one.reason})
    return found


def try_again(
    found: Iterable[Leftover], queues: Queues, now: datetime, new_id: NewId
) -> Iterator[tuple[Leftover, bool]]:
    """Sends each to its cleanup again, as a redrive does, even if its message is long lost.

    Yields each leftover, one per chat, and whether its queue took the message; if not, it can be sent again later.
    """
    # One event has all of a chat cleaned up.
    for one in {(one.tenant_id, one.chat_id, one.attachment_id): one for one in found}.values():
        try:
            event = _event(one, now, new_id)
            if event is None:
                continue
            _send(one, event, queues, now, new_id(now))
        except ServiceUnavailable:
            logger.exception("what is left over cannot be sent to its cleanup", extra={"chat_id": one.chat_id})
            yield one, False
        else:
            yield one, True


def _send(one: Leftover, event: Event, queues: Queues, now: datetime, event_id: str) -> None:
    url = queues.urls[event.queue]
    group = keys.partition(one.tenant_id, one.chat_id) if url.endswith(".fifo") else in_key(one.tenant_id)
    redriven = {REDRIVEN: str(micros(now))}
    dedupe_key = event.dedupe_key(event_id)
    attributes = attributes_of(event.event_type, event_id, one.tenant_id, dedupe_key, **redriven)
    send_one(url, SqsMessage(event_id, group, event.payload(), attributes))


def _may_wait(raw: Raw) -> bool:
    """Whether an item belongs to a deleted chat or attachment and names something to be cleaned up."""
    sk = keys.of(raw).sk
    if sk.startswith(keys.ATTACHMENT_PREFIX):
        is_deleted = bool({"deleted_at", "cleanup", "expires_at"} & raw.keys())
        return is_deleted and keys.text(raw, "cleanup", "") != CleanupStatus.DONE.value
    if sk.startswith(keys.VECTOR_STORE_PREFIX):
        return "expires_at" in raw and "gone_at" not in raw
    return sk == keys.CHAT_SK and "deleted_at" in raw and "expires_at" not in raw


def _of(raw: Raw, chat_deleted_at: datetime | None) -> Leftover | None:
    sk = keys.of(raw).sk
    if sk.startswith(keys.ATTACHMENT_PREFIX):
        one = attachments.from_raw(raw)
        at = one.deleted_at or chat_deleted_at or one.created_at
        cleanup = one.cleanup
        # A deleted chat's cleanup covers its attachments, too.
        alone = one.attachment_id if chat_deleted_at is None else None
        what = f"attachment {one.attachment_id}"
        return Leftover(one.tenant_id, one.chat_id, what, at, cleanup.attempts, cleanup.last_error, alone)
    if chat_deleted_at is None:
        return None
    if sk.startswith(keys.VECTOR_STORE_PREFIX):
        store = stored_stores.from_raw(raw)
        return Leftover(store.tenant_id, store.chat_id, f"vector store at {store.provider}", chat_deleted_at)
    chat = stored_chats.from_raw(raw)
    assert chat is not None
    return Leftover(chat.tenant_id, chat.chat_id, "chat", chat_deleted_at)


def _event(one: Leftover, now: datetime, new_id: NewId) -> Event | None:
    """The event that has it cleaned up; None when it is gone by now."""
    if one.attachment_id is not None:
        attachment = attachments.read(one.tenant_id, one.chat_id, one.attachment_id)
        if attachment is None or attachment.deleted_at is None:
            return None
        return to_be_cleaned(attachment, attachment.deleted_at)
    chat = stored_chats.read(one.tenant_id, one.chat_id)
    return None if chat is None or chat.deleted_at is None else chats.to_be_cleaned(chat, chat.deleted_at, new_id(now))
