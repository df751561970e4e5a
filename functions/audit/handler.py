"""Audit events to the audit trail."""

from typing import Any
from uuid import UUID

from minichat.events import audit_sink, sqs
from minichat.events.consume import PermanentFailure, Received, consume
from minichat.events.payloads import AuditEvent
from minichat.settings import current

sqs.connect(current())


def handler(event: dict[str, Any], context: object) -> object:
    """The messages to redeliver, as a partial batch response."""
    del context
    return consume(event, "audit", AuditEvent, _record)


def _record(event: AuditEvent, received: Received) -> str:
    try:
        UUID(received.event_id)
    except ValueError:
        raise PermanentFailure("event_id is not a UUID") from None
    return "recorded" if audit_sink.write(received.body, received.event_id, event.timestamp) else "duplicate"
