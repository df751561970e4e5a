"""What must happen before the items of a deleted chat may go: its end, its usage in the ledger, its files' cleanup."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.cleanup import CleanupStatus
from minichat.domain.identity import Call
from minichat.domain.turn import Turn
from minichat.services.orphans import end_if_dead
from minichat.settings import Settings
from minichat.storage import attachments, turn_lists, usage_ledger, vector_stores
from minichat.storage.unreadable import Unreadable

UNBOOKED = timedelta(days=14)
"""For so long a turn that has ended may still come into the ledger: no queue keeps its event for longer (AWS limit)."""


def reason_to_wait(call: Call, chat: Chat, settings: Settings) -> str | None:
    """What is in the way, in words; None when nothing is. A turn whose process is dead is ended here.

    Raises ServiceUnavailable.
    """
    return next(_reasons(call, chat, settings), None)


def _reasons(call: Call, chat: Chat, settings: Settings) -> Iterator[str]:
    if chat.running_request_id is not None and not end_if_dead(call, chat, settings):
        yield "a turn has not ended yet"
    yield from _of_turns(list(turn_lists.of_chat(chat.tenant_id, chat.chat_id)), call.now)
    for file in attachments.of_chat(chat.tenant_id, chat.chat_id):
        yield from _of_file(file, call.now - timedelta(seconds=settings.attachments.upload_seconds))
    for store in vector_stores.of_chat(chat.tenant_id, chat.chat_id):
        if isinstance(store, Unreadable) or store.gone_at is None:
            yield "a vector store is not cleaned up yet"


def _of_turns(turns: list[Turn | Unreadable], now: datetime) -> Iterator[str]:
    ended: list[Turn] = []
    for turn in turns:
        if isinstance(turn, Unreadable):
            yield f"{turn.key} cannot be read"
        elif turn.completed_at is None:
            yield "a turn has not ended yet"
        elif turn.completed_at > now - UNBOOKED:
            ended.append(turn)
    if len(usage_ledger.of_turns(ended)) < len(ended):
        # Its event would enter the user's name once more.
        yield "the usage of a turn is not in the ledger yet"


def _of_file(file: Attachment | Unreadable, signed_before: datetime) -> Iterator[str]:
    if isinstance(file, Unreadable):
        yield f"{file.key} cannot be read"
    elif file.cleanup.status is CleanupStatus.FAILED:
        yield f"the cleanup of attachment {file.attachment_id} failed (minichat cleanup again)"
    elif file.cleanup.status is not CleanupStatus.DONE:
        yield f"attachment {file.attachment_id} is not cleaned up yet"
    elif file.created_at > signed_before:
        yield f"attachment {file.attachment_id} can still be uploaded"
