"""Attachments of a chat: their items, and the state of their cleanup.

A provider's id is only ever added to an item whose cleanup has not begun: the write requires `cleanup_status` to be
absent, and its worker takes back what it made when the write is refused. The cleanup's writes require what they relied
on to be unchanged: the ids, and when an upload began. So the second of the two notices the first, and no file is left
behind.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from minichat import greenlets
from minichat.domain.attachment import Attachment, AttachmentStatus, Ingest, Thumbnail
from minichat.domain.chat import Chat
from minichat.domain.cleanup import Cleanup, CleanupStatus
from minichat.domain.identity import AttachmentId, ChatId, TenantId, UserId
from minichat.storage import chats, keys, unreadable
from minichat.storage.attachment_items import AttachmentItem, ThumbnailItem
from minichat.storage.items import batch_get, between
from minichat.storage.keys import Raw
from minichat.storage.messages import Window
from minichat.storage.transact import Put
from minichat.storage.unreadable import Unreadable

PAGE_ITEMS = 50


def put(attachment: Attachment) -> Put:
    """The write that stores a new attachment."""
    item = AttachmentItem(
        *keys.attachment(attachment.tenant_id, attachment.chat_id, attachment.attachment_id),
        kind=attachment.kind,
        storage_backend=attachment.storage_backend,
        provider_file_id=attachment.provider_file_id,
        vector_store_id=attachment.vector_store_id,
        deleted_at=attachment.deleted_at,
        cleanup_status=attachment.cleanup.status,
        cleanup_attempts=attachment.cleanup.attempts or None,
        last_cleanup_error=attachment.cleanup.last_error,
        cleanup_updated_at=attachment.cleanup.updated_at,
        uploaded_by=attachment.uploaded_by,
        filename=attachment.filename or None,
        content_type=attachment.content_type or None,
        size_bytes=attachment.size_bytes,
        status=attachment.status,
    )
    return Put("attachment", item, AttachmentItem.pk.does_not_exist())


def read(tenant_id: TenantId, chat_id: ChatId, attachment_id: AttachmentId) -> Attachment | None:
    """One attachment of a chat, deleted or not.

    Raises ServiceUnavailable.
    """
    return next(iter(of_ids(tenant_id, chat_id, [attachment_id])), None)


def with_chat(
    tenant_id: TenantId, chat_id: ChatId, attachment_id: AttachmentId
) -> tuple[Chat | None, Attachment | None]:
    """The chat's head and one of its attachments, deleted or not, in one round trip.

    Raises ServiceUnavailable.
    """
    head, own = keys.chat(tenant_id, chat_id), keys.attachment(tenant_id, chat_id, attachment_id)
    found = batch_get([head, own])
    return chats.from_raw(found.get(head)), from_raw(found[own]) if own in found else None


def of_ids(tenant_id: TenantId, chat_id: ChatId, attachment_ids: Iterable[AttachmentId]) -> list[Attachment]:
    """Those of these attachments of a chat that exist, deleted or not, in this order; one call per hundred.

    Raises ServiceUnavailable.
    """
    wanted = [keys.attachment(tenant_id, chat_id, attachment_id) for attachment_id in attachment_ids]
    found = batch_get(wanted)
    return [from_raw(found[key]) for key in wanted if key in found]


def shown(tenant_id: TenantId, chat_id: ChatId, attachment_ids: Iterable[AttachmentId]) -> list[Attachment]:
    """As `of_ids`, each with its thumbnail, which `of_ids` leaves out; one call per fifty.

    Raises ServiceUnavailable.
    """
    ids = list(attachment_ids)
    own = [keys.attachment(tenant_id, chat_id, one) for one in ids]
    pictures = [keys.thumbnail(tenant_id, chat_id, one) for one in ids]
    found = batch_get([*own, *pictures])
    return [
        replace(from_raw(found[key]), thumbnail=_thumbnail(found.get(picture)))
        for key, picture in zip(own, pictures, strict=True)
        if key in found
    ]


def pictured(files: Sequence[Attachment]) -> list[Attachment]:
    """The same attachments of one chat, each with its thumbnail; one call per hundred images.

    Raises ServiceUnavailable.
    """
    where = {one.attachment_id: keys.thumbnail(one.tenant_id, one.chat_id, one.attachment_id) for one in files}
    found = batch_get(where[one.attachment_id] for one in files if one.kind == "image")
    return [replace(one, thumbnail=_thumbnail(found.get(where[one.attachment_id]))) for one in files]


@dataclass(frozen=True, slots=True)
class FoundAttachments:
    """Attachments that are not deleted, and where the search stopped if it did not reach the end."""

    there: list[Attachment]
    left_at: AttachmentId | None


def page(
    tenant_id: TenantId, chat_id: ChatId, window: Window, *, limit: int, looked_at: int
) -> tuple[Chat | None, FoundAttachments]:
    """The chat's head, and up to `limit` of its attachments that are not deleted, of a window of their ids, out of
    `looked_at` at most.

    Raises ServiceUnavailable.
    """
    start = f"{keys.ATTACHMENT_PREFIX}{window.after}\0" if window.after else keys.ATTACHMENT_PREFIX
    end = f"{keys.ATTACHMENT_PREFIX}{window.before or '~'}"
    pk, descending = keys.partition(tenant_id, chat_id), window.descending
    return greenlets.together(
        lambda: chats.read(tenant_id, chat_id),
        lambda: _there_are(between(pk, start, end, page=PAGE_ITEMS, descending=descending), limit, looked_at),
    )


def _there_are(items: Iterable[Raw], limit: int, looked_at: int) -> FoundAttachments:
    found: list[Attachment] = []
    for number, raw in enumerate(items, start=1):
        one = from_raw(raw)
        if one.deleted_at is None:
            found.append(one)
        if len(found) == limit:
            break
        if number >= looked_at:
            return FoundAttachments(found, one.attachment_id)
    return FoundAttachments(found, None)


def of_chat(tenant_id: TenantId, chat_id: ChatId) -> Iterator[Attachment | Unreadable]:
    """Every attachment of a chat, deleted ones too, the oldest first; pages are read as the caller iterates.

    Raises ServiceUnavailable.
    """
    for raw in _items(keys.partition(tenant_id, chat_id), keys.ATTACHMENT_PREFIX):
        yield unreadable.read(raw, from_raw)


def _items(pk: str, prefix: str) -> Iterator[Raw]:
    return between(pk, prefix, prefix + "~", page=PAGE_ITEMS)


def from_raw(raw: Raw) -> Attachment:
    """The attachment of a stored item."""
    item = AttachmentItem.from_raw_data(dict(raw))
    tenant_id, chat_id = keys.chat_of(item.pk)
    return Attachment(
        tenant_id=tenant_id,
        chat_id=chat_id,
        attachment_id=AttachmentId(item.sk.removeprefix(keys.ATTACHMENT_PREFIX)),
        kind=item.kind,  # type: ignore[arg-type]  # only `put` writes it
        storage_backend=item.storage_backend,
        provider_file_id=item.provider_file_id,
        vector_store_id=item.vector_store_id,
        deleted_at=item.deleted_at,
        cleanup=Cleanup(
            status=CleanupStatus(item.cleanup_status) if item.cleanup_status else None,
            attempts=int(item.cleanup_attempts or 0),
            last_error=item.last_cleanup_error,
            updated_at=item.cleanup_updated_at,
        ),
        uploaded_by=UserId(item.uploaded_by) if item.uploaded_by else None,
        filename=item.filename or "",
        content_type=item.content_type or "",
        size_bytes=int(item.size_bytes or 0),
        status=AttachmentStatus(item.status) if item.status else AttachmentStatus.PENDING,
        error_code=item.error_code,
        references=int(item.references or 0),
        ingest=Ingest(
            attempts=int(item.ingest_attempts or 0),
            worker=item.ingest_worker,
            until=item.ingest_until,
            upload_began_at=item.upload_began_at,
        ),
        summary=item.summary,
        summarized_at=item.summarized_at,
    )


def _thumbnail(raw: Raw | None) -> Thumbnail | None:
    if raw is None:
        return None
    item = ThumbnailItem.from_raw_data(dict(raw))
    return None if item.data is None else Thumbnail(int(item.width), int(item.height), item.data)
