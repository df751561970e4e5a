"""Events on their way out, written in the transaction that causes them."""

from datetime import timedelta

from minichat.domain.identity import Call, ChatId, TenantId
from minichat.events.payloads import Event
from minichat.storage import keys
from minichat.storage.items import OutboxItem

KEPT = timedelta(days=7)
"""How long an operator can publish an event again."""


def item(call: Call, chat_id: ChatId, event: Event) -> OutboxItem:
    """The outbox item of an event of a chat: its id sorts by time, so a chat's events leave in order."""
    event_id = call.new_id(call.now)
    return OutboxItem(
        *keys.outbox(TenantId(event.tenant_id), chat_id, event_id),
        queue=event.queue,
        event_type=event.event_type,
        dedupe_key=event.dedupe_key(event_id),
        payload=event.payload(),
        trace_id=call.trace_id or None,
        expires_at=int((call.now + KEPT).timestamp()),
    )
