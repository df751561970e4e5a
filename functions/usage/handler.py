"""Settled turns to the usage ledger: a tenant's turns of one batch are entered together."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from minichat.domain.errors import ServiceUnavailable
from minichat.events import sqs
from minichat.events.consume import Received, consume, readable
from minichat.events.payloads import UsageEvent
from minichat.settings import current
from minichat.storage import usage_ledger
from minichat.storage.items import connect
from minichat.storage.transact import Rejected

connect(current().store)
sqs.connect(current())

Outcomes = dict[str, bool | ServiceUnavailable]
"""By event id: whether its turn is new to the ledger, or the failure that hides it."""


def handler(event: dict[str, Any], context: object) -> object:
    """The messages to redeliver, as a partial batch response."""
    del context
    booked: Outcomes = {}
    for events in _by_tenant(event):
        booked |= _booked(events)

    def effect(usage: UsageEvent, received: Received) -> str:
        outcome = booked.get(received.event_id)
        if isinstance(outcome, ServiceUnavailable):
            raise outcome
        if outcome is None:
            outcome = usage_ledger.book(usage, received.event_id, retention_days=current().quota.retention_days)
        # The same message may be in a batch twice.
        booked[received.event_id] = False
        return "booked" if outcome else "duplicate"

    return consume(event, "usage", UsageEvent, effect)


def _by_tenant(event: dict[str, Any]) -> list[dict[str, UsageEvent]]:
    found: dict[str, dict[str, UsageEvent]] = defaultdict(dict)
    for event_id, usage in readable(event, UsageEvent):
        found[usage.tenant_id][event_id] = usage
    return [
        dict(list(events.items())[start : start + usage_ledger.AT_ONCE])
        for events in found.values()
        for start in range(0, len(events), usage_ledger.AT_ONCE)
    ]


def _booked(events: Mapping[str, UsageEvent]) -> Outcomes:
    try:
        return {**usage_ledger.book_together(events, retention_days=current().quota.retention_days)}
    except ServiceUnavailable as problem:
        # Not tried one by one: each would wait for the same store.
        return dict.fromkeys(events, problem)
    except Rejected:
        # One of them can never be entered: the caller enters each alone.
        return {}
