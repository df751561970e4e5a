"""The steps of an attachment's life. Each requires the step before it, and that nobody has deleted the attachment.

    claims    before a provider is asked for anything: only in a chat that is not deleted
    notes     of what it made: until a cleanup is through, even in a deleted chat, whose cleanup then sees the note

The transactions that make, fail and delete attachments count documents and bytes in the chat's head. Those that make
attachments, or find them failed for no fault of theirs, count the day's files and bytes in the user's quota. So the
limits hold however many uploads run at once.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pynamodb.attributes import Attribute
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat.domain.attachment import (
    NOT_THE_FILES_FAULT,
    Attachment,
    AttachmentStatus,
    ErrorCode,
    Thumbnail,
)
from minichat.domain.chat_visibility import visible
from minichat.domain.cleanup import Cleanup, CleanupStatus
from minichat.domain.day_counts import DayCounts, lacking
from minichat.domain.errors import ChatNotFound, QuotaExceeded, UsedUp
from minichat.domain.files import FileLimits
from minichat.domain.identity import AttachmentId, Call
from minichat.domain.quota_periods import periods
from minichat.storage import attachments, chats, documents, idempotency_keys, keys, quota
from minichat.storage.attachment_items import AttachmentItem, CreatedAttachmentItem, ThumbnailItem
from minichat.storage.conditions import all_of, any_of, at_most, is_still, still_counts
from minichat.storage.idempotency_keys import Once
from minichat.storage.items import ChatItem, OutboxItem
from minichat.storage.transact import Check, Put, Refused, Update, Write, commit, try_commit, update_one

_ON_ITS_WAY = (AttachmentStatus.PENDING.value, AttachmentStatus.UPLOADED.value)


def create(
    call: Call, attachment: Attachment, limits: FileLimits, expected: OutboxItem, key: Once | None = None
) -> AttachmentId:
    """Stores a new attachment, counts it, and schedules a later look at it; returns its id.

    If the idempotency key made one before, returns that one's id and stores nothing.
    Raises ChatNotFound; IdempotencyKeyConflict when the key came with another request; RateLimited when the user's
    uploads come too fast; QuotaExceeded when the chat's documents or bytes, or the user's day, are used up.
    """
    writes = _created(call, attachment, limits, expected, key)
    pace = limits.rates.uploads

    def attempt(seen: int, token: str) -> AttachmentId:
        day, _ = periods(call.now)
        user = quota.key(attachment.tenant_id, call.caller.user_id, call.now)
        counted = quota.take(user, day, attachment.day_counts, limits, pace.arrival(seen, call.now))
        try:
            commit([*writes, counted], token=token, op="create_attachment")
        except Refused as refused:
            made = None if key is None else idempotency_keys.made_before(refused, CreatedAttachmentItem, key)
            if made is not None:
                return AttachmentId(made.attachment_id)
            if "chat" not in refused.old:
                quota.check_pace(pace, refused.old.get("quota"), call.now)
            if (problem := _too_many(call, attachment, limits, refused)) is not None:
                raise problem from refused
            raise
        return attachment.attachment_id

    return quota.arriving(pace, attempt, first_token=attachment.attachment_id)


def _created(
    call: Call, attachment: Attachment, limits: FileLimits, expected: OutboxItem, key: Once | None
) -> list[Put | Update]:
    """The writes of a new attachment besides its user's.

    Raises QuotaExceeded when no chat, or no day, has room for it.
    """
    item = ChatItem(*keys.chat(attachment.tenant_id, attachment.chat_id))
    size, documents = attachment.size_bytes, int(attachment.kind == "document")
    # Of many uploads at once, only those that fit are counted in.
    room = [at_most(ChatItem.upload_bytes, limits.bytes_per_chat - size)]
    if documents:
        room.append(at_most(ChatItem.documents, limits.documents_per_chat - documents))
    if size > limits.bytes_per_chat:
        raise _full_of_bytes(limits)
    if (never := lacking(DayCounts(), attachment.day_counts, limits.per_day, call.now)) is not None:
        raise QuotaExceeded(never)
    return [
        Update("chat", item, _counted(documents, size), all_of(chats.owned_by(call.caller), *room)),
        attachments.put(attachment),
        Put("event", expected),
        *([_remembered(call, attachment, key)] if key is not None else []),
    ]


def settle(seen: Attachment, cleanup: Cleanup) -> bool:
    """Records the result of an attempt to clean up the attachment as it was seen.

    False when it has changed since: its cleanup ended, another attempt was counted, its provider's ids changed, or its
    provider was sent a file. A success counts however many attempts failed meanwhile.
    Raises ServiceUnavailable.
    """
    item = AttachmentItem(*keys.attachment(seen.tenant_id, seen.chat_id, seen.attachment_id))
    ended = {CleanupStatus.DONE, CleanupStatus.FAILED} - {seen.cleanup.status}
    is_there = AttachmentItem.pk.exists()
    # Of two attempts that end the cleanup, the first decides; a new attempt starts from the end that was seen.
    not_ended = ~AttachmentItem.cleanup_status.is_in(*sorted(ended))
    # A file noted since then has not been taken away.
    same_file = is_still(AttachmentItem.provider_file_id, seen.provider_file_id)
    same_upload = is_still(AttachmentItem.upload_began_at, seen.ingest.upload_began_at)
    same_store = is_still(AttachmentItem.vector_store_id, seen.vector_store_id)
    unchanged = [is_there, not_ended, same_file, same_upload, same_store]
    changed: list[tuple[Attribute[Any], object]] = [
        (AttachmentItem.cleanup_status, cleanup.status),
        (AttachmentItem.cleanup_updated_at, cleanup.updated_at),
    ]
    if cleanup.status is not CleanupStatus.DONE:
        changed.append((AttachmentItem.cleanup_attempts, cleanup.attempts))
        changed.append((AttachmentItem.last_cleanup_error, cleanup.last_error))
        # Each attempt counts once.
        same_attempts = is_still(AttachmentItem.cleanup_attempts, seen.cleanup.attempts or None)
        unchanged.append(same_attempts)
    actions = [attribute.set(value) for attribute, value in changed if value is not None]
    return update_one(item, actions, all_of(*unchanged), op="cleanup")


def _too_many(call: Call, attachment: Attachment, limits: FileLimits, refused: Refused) -> QuotaExceeded | None:
    """Why there was no room for an attachment: in its chat, or in its owner's day. None when there is room.

    Raises ChatNotFound.
    """
    if "chat" in refused.old:
        raw = refused.old["chat"]
        visible(chats.from_raw(raw), call.caller)
        assert raw is not None
        if int(raw.get("bytes", {}).get("N", 0)) > limits.bytes_per_chat - attachment.size_bytes:
            return _full_of_bytes(limits)
        detail = f"A chat has at most {limits.documents_per_chat} documents."
        return QuotaExceeded(UsedUp("uploads"), detail)
    used = quota.counts(refused.old.get("quota") or {}, periods(call.now)[0])
    none_left = lacking(used, attachment.day_counts, limits.per_day, call.now)
    return None if none_left is None else QuotaExceeded(none_left)


def _remembered(call: Call, attachment: Attachment, key: Once) -> Put:
    # A key belongs to one chat: an upload to another chat may use the same one.
    where = keys.created(attachment.tenant_id, call.caller.user_id, f"{attachment.chat_id} {key.key}")
    return idempotency_keys.remember(
        CreatedAttachmentItem(*where, attachment_id=attachment.attachment_id), key, call.now
    )


def delete(call: Call, seen: Attachment, events: Sequence[OutboxItem]) -> bool:
    """Hides the attachment, uncounts it, and has it cleaned up at its provider: one transaction.

    False when it has changed since it was seen: read it again.
    Raises ChatNotFound.
    """
    is_there = AttachmentItem.pk.exists()
    is_shown = AttachmentItem.deleted_at.does_not_exist()
    is_theirs = AttachmentItem.uploaded_by == call.caller.user_id
    # An attachment of a visible message stays, even if the message was sent since.
    unreferenced = still_counts(AttachmentItem.references, 0)
    no_cleanup = AttachmentItem.cleanup_status.does_not_exist()
    # A failed attachment is already out of the chat's counters.
    has_failed = AttachmentItem.status == AttachmentStatus.FAILED.value
    counted_as_seen = has_failed if seen.status is AttachmentStatus.FAILED else ~has_failed
    unchanged = all_of(is_there, is_shown, is_theirs, unreferenced, no_cleanup, counted_as_seen)
    actions = [
        AttachmentItem.deleted_at.set(call.now),
        AttachmentItem.summary.remove(),
        AttachmentItem.cleanup_status.set(CleanupStatus.PENDING.value),
        AttachmentItem.cleanup_updated_at.set(call.now),
    ]
    writes: list[Put | Update] = [
        Update("chat", _head(seen), _uncounted(seen), chats.owned_by(call.caller)),
        Update("attachment", _item(seen), actions, unchanged),
        # It may have become ready since it was seen.
        documents.remove(seen) if seen.kind == "document" else _without_picture(seen),
        *(Put(f"event {number}", item) for number, item in enumerate(events)),
    ]
    try:
        commit(writes, token=call.new_id(call.now), op="delete_attachment")
    except Refused as refused:
        if "chat" in refused.old:
            raise ChatNotFound from refused
        return False
    return True


def take(seen: Attachment, worker: str, *, now: datetime, until: datetime) -> bool:
    """Makes the work on an attachment this worker's until then; False if another has it, or there is nothing to do.

    Raises ServiceUnavailable, as everything below does.
    """
    attempts, counted = seen.ingest.attempts, AttachmentItem.ingest_attempts
    nobody_has_it = at_most(AttachmentItem.ingest_until, now)
    # Of two workers that find it free, the first counts the attempt, and the second is refused.
    same_attempts = is_still(counted, attempts or None)
    # A repetition after a lost answer: the attempt counts once, because the number is set, not added to.
    is_ours = AttachmentItem.ingest_worker == worker
    free = any_of(all_of(nobody_has_it, same_attempts), is_ours)
    actions = [
        AttachmentItem.ingest_worker.set(worker),
        AttachmentItem.ingest_until.set(until),
        counted.set(attempts + 1),
    ]
    return update_one(_item(seen), actions, all_of(_open(), free), op="ingest")


def release(seen: Attachment, worker: str) -> None:
    """Lets others go on with the attachment at once."""
    is_there = AttachmentItem.pk.exists()
    is_ours = AttachmentItem.ingest_worker == worker
    actions = [AttachmentItem.ingest_worker.remove(), AttachmentItem.ingest_until.remove()]
    update_one(_item(seen), actions, all_of(is_there, is_ours), op="ingest")


def upload_begins(seen: Attachment, worker: str, now: datetime, *, token: str) -> bool:
    """Records that the file is about to go to the provider; False when the worker is too late."""
    return _claim(seen, worker, [AttachmentItem.upload_began_at.set(now)], AttachmentStatus.PENDING, token=token)


def uploaded(seen: Attachment, worker: str, file_id: str) -> bool:
    """Records that the provider has the file; False when it must be taken back."""
    actions = [
        AttachmentItem.provider_file_id.set(file_id),
        AttachmentItem.status.set(AttachmentStatus.UPLOADED.value),
    ]
    return update_one(_item(seen), actions, _may_step(worker, AttachmentStatus.PENDING), op="ingest")


def enters_store(seen: Attachment, worker: str, vector_store_id: str, *, token: str) -> bool:
    """Records which vector store the file is about to be put into; False when the worker is too late."""
    actions = [AttachmentItem.vector_store_id.set(vector_store_id)]
    return _claim(seen, worker, actions, AttachmentStatus.UPLOADED, token=token)


def ready(
    seen: Attachment, worker: str, thumbnail: Thumbnail | None, *, token: str, event: OutboxItem | None = None
) -> bool:
    """Records that the attachment, as it is seen, can be used. The same transaction makes a document known to turns,
    and publishes the event, if any.

    Not in a deleted chat: its items may already have their expiry, and a new thumbnail would outlive them.
    """
    actions: list[Action] = [
        AttachmentItem.status.set(AttachmentStatus.READY.value),
        AttachmentItem.ingest_worker.remove(),
        AttachmentItem.ingest_until.remove(),
    ]
    writes: list[Write] = [
        _of_a_living_chat(seen),
        Update("attachment", _item(seen), actions, _may_step(worker, AttachmentStatus.UPLOADED)),
        *([documents.add(seen)] if seen.kind == "document" else []),
        *([Put("event", event)] if event is not None else []),
    ]
    if thumbnail is not None:
        picture = ThumbnailItem(*_picture(seen), data=thumbnail.data, width=thumbnail.width, height=thumbnail.height)
        writes.append(Put("thumbnail", picture))
    return try_commit(writes, token=token, op="ingest")


def summarized(call: Call, seen: Attachment, summary: str, event: OutboxItem) -> bool:
    """Records a document's summary, for its owner and for turns, and publishes the event: one transaction.

    False when it came too late: the document has a summary, or was deleted, or its chat was.
    Raises ServiceUnavailable.
    """
    is_there = AttachmentItem.pk.exists()
    is_ready = AttachmentItem.status == AttachmentStatus.READY.value
    is_shown = AttachmentItem.deleted_at.does_not_exist()
    # The first summary stays: turns know it by now.
    has_none = AttachmentItem.summarized_at.does_not_exist()
    unsummarized = all_of(is_there, is_ready, is_shown, has_none)
    actions = [AttachmentItem.summary.set(summary), AttachmentItem.summarized_at.set(call.now)]
    writes: list[Write] = [
        _of_a_living_chat(seen),
        Update("attachment", _item(seen), actions, unsummarized),
        documents.add(replace(seen, summary=summary)),
        Put("event", event),
    ]
    return try_commit(writes, token=call.new_id(call.now), op="ingest")


def failed(seen: Attachment, worker: str, code: ErrorCode, *, nothing_left: bool, token: str) -> bool:
    """Records why the attachment will never be ready, and uncounts it: one transaction. If it failed for no fault of
    its own, it no longer counts in the user's day, either.

    `nothing_left`: its provider has nothing of it. Otherwise the provider's ids stay, for the cleanup after its
    deletion.
    """
    actions: list[Action] = [
        AttachmentItem.status.set(AttachmentStatus.FAILED.value),
        AttachmentItem.error_code.set(code),
        AttachmentItem.ingest_worker.remove(),
        AttachmentItem.ingest_until.remove(),
    ]
    if nothing_left:
        at_provider = (
            AttachmentItem.provider_file_id,
            AttachmentItem.vector_store_id,
            AttachmentItem.upload_began_at,
        )
        actions += [attribute.remove() for attribute in at_provider]
    writes = [
        Update("chat", _head(seen), _uncounted(seen), ChatItem.pk.exists()),
        Update("attachment", _item(seen), actions, _is_work_of(worker)),
    ]
    if code in NOT_THE_FILES_FAULT and seen.uploaded_by is not None:
        day, _ = periods(seen.created_at)
        user = quota.key(seen.tenant_id, seen.uploaded_by, seen.created_at)
        writes.append(quota.give_back(user, day, seen.day_counts))
    return try_commit(writes, token=token, op="ingest")


def while_working(seen: Attachment, worker: str) -> list[Write]:
    """Writes that change nothing. They are refused once the attachment is no longer this worker's, or it or its chat
    was deleted."""
    unchanged = [AttachmentItem.ingest_worker.set(worker)]
    return [_of_a_living_chat(seen), Update("attachment", _item(seen), unchanged, _is_work_of(worker))]


def _claim(seen: Attachment, worker: str, actions: Sequence[Action], after: AttachmentStatus, *, token: str) -> bool:
    step = Update("attachment", _item(seen), actions, _may_step(worker, after))
    return try_commit([_of_a_living_chat(seen), step], token=token, op="ingest")


def _of_a_living_chat(seen: Attachment) -> Check:
    return Check("chat", _head(seen), chats.is_alive())


def _may_step(worker: str, after: AttachmentStatus) -> Condition:
    """The attachment is this worker's, and has come as far as the step before."""
    is_next = AttachmentItem.status == after.value
    return all_of(_is_work_of(worker), is_next)


def _is_work_of(worker: str) -> Condition:
    """The attachment is still open, and no other worker has taken it over from this one, if late."""
    is_theirs = AttachmentItem.ingest_worker == worker
    return all_of(_open(), is_theirs)


def _open() -> Condition:
    is_there = AttachmentItem.pk.exists()
    on_its_way = AttachmentItem.status.is_in(*_ON_ITS_WAY)
    is_shown = AttachmentItem.deleted_at.does_not_exist()
    # Nobody would clean up what is noted after a cleanup is through.
    no_cleanup = AttachmentItem.cleanup_status.does_not_exist()
    return all_of(is_there, on_its_way, is_shown, no_cleanup)


def _counted(documents: int, size: int) -> list[Action]:
    return [ChatItem.upload_bytes.add(size), *([ChatItem.documents.add(documents)] if documents else [])]


def _uncounted(seen: Attachment) -> list[Action]:
    """What takes an attachment out of the chat's counters; nothing for a failed one, which is already out."""
    gone = 0 if seen.status is AttachmentStatus.FAILED else -1
    return _counted(gone * (seen.kind == "document"), gone * seen.size_bytes)


def _full_of_bytes(limits: FileLimits) -> QuotaExceeded:
    detail = f"The files of a chat have at most {limits.bytes_per_chat} bytes together."
    return QuotaExceeded(UsedUp("uploads"), detail)


def _head(seen: Attachment) -> ChatItem:
    return ChatItem(*keys.chat(seen.tenant_id, seen.chat_id))


def _without_picture(seen: Attachment) -> Update:
    return Update("thumbnail", ThumbnailItem(*_picture(seen)), [ThumbnailItem.data.remove()])


def _picture(seen: Attachment) -> keys.Key:
    return keys.thumbnail(seen.tenant_id, seen.chat_id, seen.attachment_id)


def _item(seen: Attachment) -> AttachmentItem:
    return AttachmentItem(*keys.attachment(seen.tenant_id, seen.chat_id, seen.attachment_id))
