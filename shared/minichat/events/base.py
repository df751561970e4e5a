"""What every event is: its destination, its JSON, and the key that makes its effect happen once."""

import json
from datetime import datetime
from typing import ClassVar, Literal

from minichat.events.decisions import PayloadPart

Queue = Literal["audit", "usage", "attachment-cleanup", "attachment-ingest", "chat-cleanup", "thread-summary"]


class Event(PayloadPart):
    """An event; `queue` is its destination."""

    queue: ClassVar[Queue]
    event_type: str
    tenant_id: str

    def dedupe_key(self, event_id: str) -> str:
        """The key by which a consumer recognizes an event that it has seen."""
        return event_id

    def payload(self) -> str:
        """The event as JSON, as it is sent: its type first, and every member."""
        return self._json(exclude_defaults=False)

    def stored(self) -> str:
        """The event as JSON, as the outbox stores it: without members that have their default (see `whole`)."""
        return self._json(exclude_defaults=True)

    def _json(self, *, exclude_defaults: bool) -> str:
        members = self.model_dump(mode="json", exclude_defaults=exclude_defaults)
        text = json.dumps({"event_type": self.event_type, **members}, ensure_ascii=False, separators=(",", ":"))
        # The two characters of JSON that SQS refuses.
        return text.replace("\ufffe", r"\ufffe").replace("\uffff", r"\uffff")


class Audited(Event):
    """An event of the audit trail."""

    queue = "audit"
    timestamp: datetime
    requester_type: str
    trace_id: str | None = None
