"""A deleted chat disappears: its running turn ends, then all of its items expire (events-and-workers 4)."""

from datetime import datetime, timedelta

from minichat.domain.chat import Chat
from minichat.domain.identity import Call, Caller, ChatId, NewId, TenantId
from minichat.events.payloads import ChatCleanup
from minichat.services.orphans import end_if_dead
from minichat.settings import Settings
from minichat.storage import chats, purge

KEPT_UNCLEANED = timedelta(days=3650)
"""How much longer than the rest of a deleted chat the items that locate its files are kept while a provider may have
them: long enough for a discovery years later, but not for ever."""


class ChatNotDeleted(Exception):
    """The chat is not deleted: the request to purge it is wrong."""


class StillRunning(Exception):
    """A turn of the chat has not ended yet, though the chat's deletion cancelled it."""


def expire(event: ChatCleanup, settings: Settings, now: datetime, new_id: NewId) -> int:
    """Marks every item of a deleted chat to expire after the grace period; how many it marked. Safe to call again.

    Items that the cleanup of its files and vector stores needs stay longer, until `expire_cleaned`. Quota, ledger and
    audit trail stay: they are the tenant's, and hold no content.
    Raises ChatNotDeleted, StillRunning, ServiceUnavailable when an item could not be marked.
    """
    chat = _deleted(event)
    if chat is None:
        return 0
    call = Call(Caller(chat.tenant_id, chat.user_id, "system"), now, new_id)
    if chat.running_request_id is not None and not end_if_dead(call, chat, settings):
        # The turn's end writes items of its own, which would stay for ever if the others had expired already. Once it
        # has ended no turn is left: none begins in a deleted chat.
        raise StillRunning
    at = _end_of_grace(chat, settings)
    marked = purge.contents(chat.tenant_id, chat.chat_id, at)
    return marked + purge.needed(chat.tenant_id, chat.chat_id, at, uncleaned_at=at + KEPT_UNCLEANED)


def expire_cleaned(event: ChatCleanup, settings: Settings) -> int:
    """Marks the items that a deleted chat's cleanup needed, as far as that is done, to expire too; how many it marked.

    Raises ChatNotDeleted, ServiceUnavailable.
    """
    chat = _deleted(event)
    if chat is None:
        return 0
    at = _end_of_grace(chat, settings)
    return purge.needed(chat.tenant_id, chat.chat_id, at, uncleaned_at=at + KEPT_UNCLEANED)


def _deleted(event: ChatCleanup) -> Chat | None:
    """The event's chat; None when it is gone.

    Raises ChatNotDeleted.
    """
    chat = chats.read(TenantId(event.tenant_id), ChatId(event.chat_id))
    if chat is not None and chat.deleted_at is None:
        raise ChatNotDeleted
    return chat


def _end_of_grace(chat: Chat, settings: Settings) -> datetime:
    assert chat.deleted_at is not None
    return chat.deleted_at + timedelta(days=settings.retention.deleted_chats_days)
