"""Gives the items of deleted chats an expiry, and removes what the chats left at providers; erases users, and
exports them."""

from datetime import datetime, timedelta
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from minichat.domain.cleanup import CleanupOutcome
from minichat.domain.erasure import ErasureNotFound
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.export import ExportNotFound
from minichat.domain.identity import ChatId, TenantId
from minichat.events import sqs
from minichat.events.consume import NotYet, PermanentFailure, Received, consume
from minichat.events.erasures import EraseTask
from minichat.events.exports import ExportTask
from minichat.events.payloads import ChatCleanup, Cleanup
from minichat.moment import new_id, now
from minichat.providers.files import Files
from minichat.services import chat_purge, erasing, exporting, provider_cleanup
from minichat.services.providers_in_force import ProvidersInForce
from minichat.settings import current
from minichat.storage import store_time
from minichat.storage.items import connect

ONE_MORE = timedelta(seconds=20)
"""Kept for the attachment that is being cleaned up when time is up."""

connect(current().store)
sqs.connect(current())
_means = provider_cleanup.CleanupDeps(Files(ProvidersInForce(current()).entries_of), current().cleanup, now)


def handler(event: dict[str, Any], context: LambdaContext) -> object:
    """The messages to redeliver, as a partial batch response."""
    store_time.ask()
    ends_at = now() + timedelta(milliseconds=context.get_remaining_time_in_millis()) - ONE_MORE

    def effect(task: ChatCleanup | EraseTask | ExportTask, received: Received) -> str:
        match task:
            case EraseTask():
                return _erase(task, ends_at)
            case ExportTask():
                return _export(task, ends_at)
            case ChatCleanup():
                return _clean(task, received, ends_at)

    return consume(event, "chat-cleanup", Cleanup, effect)


def _erase(task: EraseTask, ends_at: datetime) -> str:
    deps = erasing.ErasingDeps(current(), now, new_id)
    try:
        stage = erasing.go_on(TenantId(task.tenant_id), task.erasure_id, deps, ends_at=ends_at)
    except ErasureNotFound:
        raise PermanentFailure("there is no such erasure") from None
    if stage != "complete":
        raise NotYet
    return stage


def _export(task: ExportTask, ends_at: datetime) -> str:
    if now() >= ends_at:
        # Others of the batch have used up the time; what it could still do is not worth another task.
        raise NotYet
    deps = exporting.ExportingDeps(current(), now, new_id)
    try:
        return exporting.go_on(TenantId(task.tenant_id), task.export_id, deps, ends_at=ends_at)
    except ExportNotFound:
        # It was removed with who is erased, and its files again, in case one came late.
        return "gone"


def _clean(event: ChatCleanup, received: Received, ends_at: datetime) -> str:
    where = TenantId(event.tenant_id), ChatId(event.chat_id)
    try:
        # First, because it depends on no provider.
        unmarked = _unmarked(event)
        outcome = provider_cleanup.clean_chat_resources(*where, _means, ends_at=ends_at, redriven=received.redriven)
        if unmarked is not None:
            raise unmarked
        if outcome is CleanupOutcome.DONE:
            chat_purge.expire_cleaned(event, current())
    except chat_purge.ChatNotDeleted:
        raise PermanentFailure("the chat is not deleted") from None
    if outcome in (CleanupOutcome.PENDING, CleanupOutcome.UNFINISHED):
        raise NotYet
    if outcome is CleanupOutcome.FAILED:
        raise PermanentFailure("a provider may keep a file or a vector store of the chat: see last_cleanup_error")
    return outcome


def _unmarked(event: ChatCleanup) -> ServiceUnavailable | None:
    """Gives the chat's items an expiry; returns the failure, which must not keep files at their provider."""
    try:
        chat_purge.expire(event, current(), now(), new_id)
    except ServiceUnavailable as problem:
        return problem
    return None
