"""Events on their way out, written in the transaction that causes them."""

from datetime import datetime, timedelta
from uuid import uuid4

from minichat.domain.identity import Call, ChatId, TenantId, from_seconds
from minichat.events.base import Audited, Event
from minichat.events.payloads import PolicyPublished
from minichat.storage import keys
from minichat.storage.items import OutboxItem
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import Put, try_commit

KEPT = timedelta(days=7)
"""How long an operator can republish an event."""


def of_policy(event: PolicyPublished, event_id: str) -> OutboxItem:
    """The outbox item of a published layer of the policy."""
    key = keys.outbox(TenantId(event.tenant_id), ChatId("policy"), event_id)
    return _item(key, event, event.timestamp, trace_id=event.trace_id)


def item(call: Call, chat_id: ChatId, event: Event, *, delay_seconds: int | None = None) -> OutboxItem:
    """The outbox item of an event of a chat: its id sorts by time, so a chat's events leave in order.

    A consumer gets it `delay_seconds` later, 900 at most (AWS limit); not for FIFO queues.
    """
    event_id = call.new_id(call.now)
    key = keys.outbox(TenantId(event.tenant_id), chat_id, event_id)
    made = _item(key, event, call.now, trace_id=call.trace_id or None)
    made.delay_seconds = delay_seconds
    return made


def of_tenant(event: Audited, event_id: str) -> OutboxItem:
    """The outbox item of an event of no chat."""
    key = keys.outbox(TenantId(event.tenant_id), ChatId(event.event_type), event_id)
    return _item(key, event, event.timestamp, trace_id=event.trace_id)


def kept_until(raw: Raw) -> datetime:
    """When a stored event expires."""
    return from_seconds(keys.number(raw, OutboxItem.expires_at.attr_name))


def once(event: Audited, event_id: str, *, op: str = "refusal") -> bool:
    """Publishes an event of no chat, by itself; False when one with its id exists already.

    Raises ServiceUnavailable; the event may be written all the same.
    """
    absent = OutboxItem.pk.does_not_exist()
    return try_commit([Put("event", of_tenant(event, event_id), absent)], token=str(uuid4()), op=op)


def _item(key: Key, event: Event, at: datetime, *, trace_id: str | None) -> OutboxItem:
    return OutboxItem(
        *key,
        queue=event.queue,
        event_type=event.event_type,
        dedupe_key=event.dedupe_key(key.sk),
        payload=event.stored(),
        trace_id=trace_id,
        expires_at=int((at + KEPT).timestamp()),
    )
