"""Settled turns to the usage ledger."""

from typing import Any

from minichat.events import queues
from minichat.events.consume import Received, consume
from minichat.events.payloads import UsageEvent
from minichat.settings import current
from minichat.storage import usage_ledger
from minichat.storage.items import connect

connect(current().store)
queues.connect(current())


def handler(event: dict[str, Any], context: object) -> object:
    """Which messages have to come again."""
    del context
    return consume(event, "usage", UsageEvent, _book)


def _book(event: UsageEvent, received: Received) -> str:
    days = current().quota.retention_days
    return "booked" if usage_ledger.book(event, received.event_id, retention_days=days) else "duplicate"
