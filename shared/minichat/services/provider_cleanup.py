"""Deletes what a deleted attachment, or a deleted chat, has at its providers (events-and-workers 4).

Everything here may be killed at any point and run again, by any number at once. What is already gone counts as deleted,
an item's state changes only under a condition, and the table is the truth, never an event.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from minichat.domain.attachment import Attachment, VectorStore
from minichat.domain.cleanup import CleanupOutcome, CleanupStatus, Failure, after_attempt
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.files import name_at_provider
from minichat.domain.identity import AttachmentId, ChatId, Clock, TenantId
from minichat.events.payloads import AttachmentCleanup
from minichat.observability import count, logger
from minichat.providers.files import Account, Files
from minichat.services import vector_stores
from minichat.services.chat_purge import ChatNotDeleted
from minichat.settings import CleanupSettings
from minichat.storage import attachment_steps, attachments, chats
from minichat.storage import vector_stores as stored_stores
from minichat.storage.unreadable import Unreadable

_WORST_FIRST = (CleanupOutcome.PENDING, CleanupOutcome.FAILED, CleanupOutcome.DONE)
"""For a chat's stores: a permanent refusal is reported only once nothing else is left to try."""


class AttachmentNotDeleted(Exception):
    """Cleanup was asked for an attachment that is not deleted. Asking again will not help."""


@dataclass(frozen=True, slots=True)
class CleanupDeps:
    """What cleaning up takes."""

    files: Files
    settings: CleanupSettings
    clock: Clock


def clean_attachment(event: AttachmentCleanup, means: CleanupDeps, *, redriven: bool = False) -> CleanupOutcome:
    """One attempt to delete a deleted attachment at its provider; with `redriven` even if its cleanup has failed.

    An attachment that does not exist in this tenant and chat needs nothing: ALREADY_TERMINAL.
    Raises AttachmentNotDeleted, and ServiceUnavailable (the attempt does not count then).
    """
    where = TenantId(event.tenant_id), ChatId(event.chat_id), AttachmentId(event.attachment_id)
    attachment = attachments.read(*where)
    if attachment is None:
        return CleanupOutcome.ALREADY_TERMINAL
    if attachment.deleted_at is None:
        raise AttachmentNotDeleted
    return _clean(attachment, means, redriven=redriven)


def clean_chat_resources(
    tenant_id: TenantId, chat_id: ChatId, means: CleanupDeps, *, ends_at: datetime, redriven: bool = False
) -> CleanupOutcome:
    """Brings every attachment of a deleted chat to the end of its cleanup, then deletes the chat's vector stores.

    DONE: its providers have nothing of it any more. PENDING: something must be tried again later. FAILED: nothing is
    left to try, and an attachment's cleanup failed or a provider will never delete a store. UNFINISHED: all went well
    but `ends_at` came first (work begun before it may end after it); call again at once, and it goes on.
    `redriven`: failed attachments are tried, too. A chat that does not exist needs nothing: ALREADY_TERMINAL.
    Raises ChatNotDeleted, and ServiceUnavailable.
    """
    chat = chats.read(tenant_id, chat_id)
    if chat is None:
        return CleanupOutcome.ALREADY_TERMINAL
    if chat.deleted_at is None:
        raise ChatNotDeleted
    files = _clean_all(attachments.of_chat(tenant_id, chat_id), means, ends_at, redriven=redriven)
    if files in (CleanupOutcome.PENDING, CleanupOutcome.UNFINISHED):
        return files
    stores = _clean_stores(stored_stores.of_chat(tenant_id, chat_id), means, ends_at)
    return files if stores is CleanupOutcome.DONE else stores


def _clean_all(
    found: Iterable[Attachment | Unreadable], means: CleanupDeps, ends_at: datetime, *, redriven: bool
) -> CleanupOutcome:
    failed, left, waiting = 0, 0, []
    for attachment in found:
        if isinstance(attachment, Unreadable):
            _told(attachment)
            left += 1
        elif attachment.cleanup.status is CleanupStatus.FAILED and not redriven:
            failed += 1
        elif attachment.cleanup.status is not CleanupStatus.DONE:
            waiting.append(attachment)
    # Attachments that failed before come last, so that they do not use up the others' time on every call.
    for attachment in sorted(waiting, key=lambda one: one.cleanup.attempts):
        if means.clock() >= ends_at:
            return CleanupOutcome.PENDING if left else CleanupOutcome.UNFINISHED
        try:
            outcome = _clean(attachment, means, redriven=redriven)
        except ServiceUnavailable:
            logger.exception("the cleanup of an attachment cannot be noted", extra={"id": attachment.attachment_id})
            outcome = CleanupOutcome.PENDING
        left += outcome is CleanupOutcome.PENDING
        failed += outcome is CleanupOutcome.FAILED
    if failed:
        logger.warning("a deleted chat has attachments that could not be cleaned up", extra={"attachments": failed})
    return CleanupOutcome.PENDING if left else CleanupOutcome.FAILED if failed else CleanupOutcome.DONE


def _clean(attachment: Attachment, means: CleanupDeps, *, redriven: bool) -> CleanupOutcome:
    """Makes one attempt, and notes it on the item."""
    before = attachment.cleanup.reopened if redriven else attachment.cleanup
    if before.is_terminal:
        return CleanupOutcome.ALREADY_TERMINAL
    if attachment.unnoted_since is not None and attachment.is_held(means.clock()):
        # A worker may be uploading its file right now, and die before it notes the file or takes it back.
        return CleanupOutcome.PENDING
    failure = take_away(attachment, means.files)
    max_attempts = means.settings.max_attempts
    cleanup, outcome = after_attempt(before, failure, max_attempts=max_attempts, at=means.clock())
    if not attachment_steps.settle(attachment, cleanup):
        now = attachments.read(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)
        if now is None or (now.cleanup.is_terminal and now.cleanup != cleanup):
            outcome = CleanupOutcome.ALREADY_TERMINAL
        elif not now.cleanup.is_terminal:
            # Another attempt was counted instead of this one, or the provider's ids have changed since our read.
            outcome = CleanupOutcome.PENDING
        # Otherwise our own write took effect: its answer was lost, and the repetition was refused.
    count("cleanup_attempt_total", outcome=outcome)
    return outcome


def take_away(attachment: Attachment, files: Files) -> Failure | None:
    """Deletes an attachment at its provider: None once nothing is left, or why something may be.

    It leaves the vector store first: searches must not find a deleted file.
    """
    account = Account(files, attachment.tenant_id, attachment.storage_backend)
    found = _files_of(attachment, account)
    if isinstance(found, Failure):
        return replace(found, reason=f"file: {found.reason}")
    for file_id in found:
        if attachment.vector_store_id is not None:
            failure = account.take_out(attachment.vector_store_id, file_id)
            if failure is not None:
                return replace(failure, reason=f"vector store: {failure.reason}")
        failure = account.delete_file(file_id)
        if failure is not None:
            return replace(failure, reason=f"file: {failure.reason}")
    # A copy at a second provider belongs here, before the attachment counts as cleaned up.
    return None


def _files_of(attachment: Attachment, account: Account) -> list[str] | Failure:
    """The provider's ids of its file: the noted one, else those found by its name."""
    if attachment.provider_file_id is not None:
        return [attachment.provider_file_id]
    if attachment.unnoted_since is None:
        return []
    return account.find_files(name_at_provider(attachment), attachment.unnoted_since)


def _told(item: Unreadable) -> None:
    """Logs an item that waits for a version that can read it; the chat's other items go on."""
    logger.error("an item to be cleaned up cannot be read", extra={"item": item.key, "reason": item.reason})


def _clean_stores(stores: Iterable[VectorStore | Unreadable], means: CleanupDeps, ends_at: datetime) -> CleanupOutcome:
    outcomes = {CleanupOutcome.DONE}
    for store in stores:
        if isinstance(store, Unreadable):
            _told(store)
            outcomes.add(CleanupOutcome.PENDING)
            continue
        if store.gone_at is not None:
            continue
        if means.clock() >= ends_at:
            return CleanupOutcome.UNFINISHED if outcomes == {CleanupOutcome.DONE} else CleanupOutcome.PENDING
        try:
            outcomes.add(_clean_store(store, means))
        except ServiceUnavailable:
            logger.exception("the cleanup of a vector store cannot be noted", extra={"chat_id": store.chat_id})
            outcomes.add(CleanupOutcome.PENDING)
    return next(worst for worst in _WORST_FIRST if worst in outcomes)


def _clean_store(store: VectorStore, means: CleanupDeps) -> CleanupOutcome:
    if not vector_stores.is_free(store, means.clock()):
        # A worker may be making it right now, and die before it takes it back.
        return CleanupOutcome.PENDING
    failure = vector_stores.delete(store, means.files)
    if failure is not None:
        logger.warning("a vector store cannot be deleted", extra={"reason": failure.reason})
        return CleanupOutcome.PENDING if failure.may_pass else CleanupOutcome.FAILED
    if stored_stores.mark_gone(store, means.clock()):
        return CleanupOutcome.DONE
    # Another worker deleted it, or it was named since our read: the next attempt will see.
    return CleanupOutcome.PENDING
