"""A deleted chat disappears: its running turn ends, then all of its items expire (events-and-workers 4)."""

from datetime import datetime, timedelta

from minichat.domain.chat import Chat
from minichat.domain.identity import Call, Caller, ChatId, NewId, TenantId
from minichat.events.payloads import ChatCleanup
from minichat.services.orphans import end_if_dead
from minichat.settings import Settings
from minichat.storage import chats, purge

KEPT_UNCLEANED = timedelta(days=3650)
"""How much longer than the rest of a deleted chat is kept what tells where its files are, while a provider may have
them: for whoever finds out years later, and yet not for ever."""


class ChatNotDeleted(Exception):
    """The chat is alive: whatever asks for its end is wrong."""


class StillRunning(Exception):
    """A turn of the chat has not ended yet; it was asked to when the chat was deleted."""


def expire(event: ChatCleanup, settings: Settings, now: datetime, new_id: NewId) -> int:
    """Has every item of a deleted chat expire once the grace is over; how many it marked. Safe to call again.

    What the cleanup of its files and vector stores needs is kept for longer, until `expire_cleaned`. Quota, ledger and
    audit trail stay: they are the tenant's, and hold no content.
    Raises ChatNotDeleted, StillRunning, ServiceUnavailable when one of them could not be given its time.
    """
    chat = _deleted(event)
    if chat is None:
        return 0
    call = Call(Caller(chat.tenant_id, chat.user_id, "system"), now, new_id)
    if chat.running_request_id is not None and not end_if_dead(call, chat, settings):
        # Its end writes items of its own, which would stay for ever if the others had expired already. Once it has
        # ended there is none: nothing begins in a deleted chat.
        raise StillRunning
    at = _end_of_grace(chat, settings)
    marked = purge.contents(chat.tenant_id, chat.chat_id, at)
    return marked + purge.needed(chat.tenant_id, chat.chat_id, at, uncleaned_at=at + KEPT_UNCLEANED)


def expire_cleaned(event: ChatCleanup, settings: Settings) -> int:
    """Has what the cleanup of a deleted chat needed expire with the rest, as far as that is done; how many it marked.

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
