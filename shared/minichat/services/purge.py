"""A deleted chat disappears: its running turn ends, then all of its items expire (events-and-workers 4)."""

from datetime import datetime, timedelta

from minichat.domain.identity import Call, Caller, ChatId, NewId, TenantId
from minichat.events.payloads import ChatCleanup
from minichat.services.orphans import freed
from minichat.settings import Settings
from minichat.storage import chats, purge


class NotDeleted(Exception):
    """The chat is alive: whatever asks for its end is wrong."""


class StillRunning(Exception):
    """A turn of the chat has not ended yet; it was asked to when the chat was deleted."""


def expire(event: ChatCleanup, settings: Settings, now: datetime, new_id: NewId) -> int:
    """Has every item of a deleted chat expire once the grace is over; how many it marked. Safe to call again.

    Quota, ledger and audit trail stay: they are the tenant's, and hold no content.
    Raises NotDeleted, StillRunning, ServiceUnavailable.
    """
    tenant_id, chat_id = TenantId(event.tenant_id), ChatId(event.chat_id)
    chat = chats.read(tenant_id, chat_id)
    if chat is None:
        return 0
    if chat.deleted_at is None:
        raise NotDeleted
    call = Call(Caller(tenant_id, chat.user_id, "system"), now, new_id)
    if chat.running_request_id is not None and not freed(call, chat, settings):
        # Its end writes items of its own, which would stay for ever if the others had expired already.
        raise StillRunning
    grace = timedelta(days=settings.retention.deleted_chats_days)
    return purge.expire(tenant_id, chat_id, chat.deleted_at + grace)
