"""An item of the outbox, as a record of its stream has it (events-and-workers 1)."""

from dataclasses import dataclass

from minichat.domain.identity import TenantId
from minichat.domain.names import in_key
from minichat.events.payloads import whole
from minichat.events.sqs import SqsMessage, attributes_of
from minichat.storage import keys
from minichat.storage.keys import Raw


class UndeliverableItem(ValueError):
    """An item that no attempt will deliver; the message says why."""


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """An event, and the queue that it is for; `partition` is its chat's, `payload` its JSON as it was stored."""

    queue: str
    event_type: str
    event_id: str
    tenant_id: TenantId
    dedupe_key: str
    trace_id: str
    delay_seconds: int
    partition: str
    payload: str

    def message(self, *, fifo: bool) -> SqsMessage:
        """The event as its queue gets it, with the members that were not stored because they have their default."""
        group = self.partition if fifo else in_key(self.tenant_id)
        attributes = attributes_of(
            self.event_type, self.event_id, self.tenant_id, self.dedupe_key, trace_id=self.trace_id
        )
        return SqsMessage(self.event_id, group, whole(self.event_type, self.payload), attributes, self.delay_seconds)


def read(image: Raw) -> OutboxRecord:
    """The event of an outbox item.

    Raises UndeliverableItem.
    """
    try:
        pk, event_id = keys.of(image)
        queue, event_type, dedupe_key, payload = (
            keys.text(image, name) for name in ("queue", "type", "dedupe", "payload")
        )
        delay_seconds = keys.number(image, "delay")
        tenant_id = keys.tenant_of(pk)
    except KeyError as missing:
        raise UndeliverableItem(f"the item has no {missing}") from None
    except (AttributeError, TypeError, ValueError) as problem:
        raise UndeliverableItem(f"the item cannot be read: {problem}") from None
    trace_id = keys.text(image, "trace", "")
    return OutboxRecord(queue, event_type, event_id, tenant_id, dedupe_key, trace_id, delay_seconds, pk, payload)
