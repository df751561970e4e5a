"""Copies of audit and usage events for consumers of others: a queue, a bus, webhooks (events-and-workers 1).

They are made from the outbox's stream by a function of their own, beside the relay: whatever is wrong with a place
outside, no event of ours waits for it. Everything may be delivered more than once; a receiver knows an event by its
`dedupe_key`, or by the `id` of its envelope. Content is redacted as in the audit trail.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from minichat.domain.redaction import redact
from minichat.events import bus
from minichat.events.sqs import SqsMessage, Unsent, send
from minichat.export_settings import Export
from minichat.observability import count
from minichat.services import outbox_records
from minichat.services.outbox_records import OutboxRecord
from minichat.settings import Queues
from minichat.storage.keys import Raw

EXPORTED = ("audit", "usage")
"""The queues whose events are for others, too; the rest are tasks of ours."""
WEBHOOK = "webhook"
ENDPOINT = "endpoint"
"""The attribute of a message that names its webhook."""


@dataclass(slots=True)
class Exported:
    """What became of a batch: events by place, how many a place refused for good, and positions to try again."""

    sent: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    again: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Copy:
    """An event that somebody outside may get, redacted; `number` is its position in the batch."""

    number: int
    record: OutboxRecord
    event: Mapping[str, Any]
    message: SqsMessage


def export(images: Sequence[Raw], settings: Export, queues: Queues) -> Exported:
    """Sends each place its events, in the order given."""
    copies = [one for number, image in enumerate(images) if (one := _copy(number, image, settings)) is not None]
    done = Exported()
    if settings.queue_url is not None:
        _send("queue", settings.queue_url, copies, done)
    if settings.bus is not None:
        _put(settings.bus, copies, done)
    for webhook in settings.webhooks:
        wanted = [one for one in copies if webhook.wants(one.record.event_type, one.record.tenant_id)]
        _send(WEBHOOK, queues.urls[WEBHOOK], wanted, done, partial(_to, name=webhook.name))
    return done


def _copy(number: int, image: Raw, settings: Export) -> _Copy | None:
    try:
        record = outbox_records.read(image)
        if record.queue not in EXPORTED or not settings.wants(record.event_type, record.tenant_id):
            return None
        message = record.message(fifo=False)
        event: Any = redact(json.loads(message.body))
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        # The relay keeps it for an operator, whole and with the reason.
        count("export_refused_total", place="unreadable")
        return None
    return _Copy(number, record, event, replace(message, body=body, delay_seconds=0))


def _to(one: SqsMessage, name: str) -> SqsMessage:
    return replace(one, attributes={**one.attributes, ENDPOINT: name})


def _send(
    place: str,
    url: str,
    copies: Sequence[_Copy],
    done: Exported,
    changed: Callable[[SqsMessage], SqsMessage] = lambda one: one,
) -> None:
    messages = [changed(one.message) for one in copies]
    numbers = {id(message): one.number for message, one in zip(messages, copies, strict=True)}
    lost = send(url, messages)
    done.sent[place] = done.sent.get(place, 0) + len(messages) - len(lost)
    for unsent in lost:
        _note(place, numbers[id(unsent.message)], unsent, done)


def _note(place: str, number: int, unsent: Unsent, done: Exported) -> None:
    if unsent.permanent:
        _refuse(place, 1, done)
    else:
        done.again.add(number)


def _put(name: str, copies: Sequence[_Copy], done: Exported) -> None:
    events = [bus.enveloped(one.record.event_id, one.record.tenant_id, one.event) for one in copies]
    again, refused = bus.put(name, events)
    done.sent["bus"] = len(events) - len(again) - len(refused)
    done.again |= {copies[position].number for position in again}
    _refuse("bus", len(refused), done)


def _refuse(place: str, number: int, done: Exported) -> None:
    if number:
        done.refused += number
        count("export_refused_total", number, place=place)
