"""Outbox items become messages, in the order of each chat (events-and-workers 1).

A record that can never be delivered goes to the relay's dead-letter queue at once, unchanged and with the reason, so
that nothing behind it waits. Everything may be delivered more than once: consumers recognize events they have seen.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from minichat.domain.errors import ServiceUnavailable
from minichat.domain.names import in_key
from minichat.events.payloads import whole
from minichat.events.sqs import SqsMessage, Unsent, attributes_of, send, send_one
from minichat.observability import count
from minichat.settings import Queues
from minichat.storage import keys
from minichat.storage.keys import Raw

DEAD_LETTERS = "outbox-relay"


@dataclass(frozen=True, slots=True)
class Relayed:
    """What became of a batch: messages per queue, how many were refused for good, and which to try again."""

    sent: dict[str, int]
    refused: int
    again: list[int]


class _Poison(ValueError):
    """An item that no attempt will deliver; the message says why."""


def relay(images: Sequence[Raw], queues: Queues, *, again: str = "") -> Relayed:
    """Sends each item's event to its queue, in the order given.

    `Relayed.again` has the positions of undelivered items. `again` keeps FIFO queues from dropping repeated events.
    """
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    messages: dict[int, SqsMessage] = {}
    poison: dict[int, str] = {}
    for number, image in enumerate(images):
        try:
            queue, message = _message(image, queues)
        except _Poison as problem:
            poison[number] = str(problem)
        else:
            numbers[queue].append(number)
            messages[number] = message
    unsent: list[int] = []
    sent: dict[str, int] = {}
    for queue, mine in numbers.items():
        lost = send(queues.urls[queue], [messages[number] for number in mine], again=again)
        failures = {id(failure.message): failure for failure in lost}
        sent[queue] = len(mine) - len(lost)
        for number in mine:
            match failures.get(id(messages[number])):
                case Unsent(permanent=True, reason=reason):
                    poison[number] = f"{queue}: {reason}"
                case Unsent():
                    unsent.append(number)
    for number, reason in poison.items():
        try:
            send_one(queues.dead_letters[DEAD_LETTERS], _refused(images[number], reason))
        except ServiceUnavailable:
            # It comes again with the rest of its shard. If that goes on for too long, Lambda reports its position.
            count("dead_letter_refused_total", queue=DEAD_LETTERS)
            unsent.append(number)
    return Relayed(sent, len(poison), sorted(unsent))


def _message(image: Raw, queues: Queues) -> tuple[str, SqsMessage]:
    """The queue of an outbox item, and its message.

    Raises _Poison.
    """
    try:
        pk, event_id = keys.of(image)
        queue, event_type, dedupe_key, payload = (
            keys.text(image, name) for name in ("queue", "type", "dedupe", "payload")
        )
        delay_seconds = keys.number(image, "delay")
    except KeyError as missing:
        raise _Poison(f"the item has no {missing}") from None
    except (AttributeError, TypeError, ValueError) as problem:
        raise _Poison(f"the item cannot be read: {problem}") from None
    try:
        tenant_id = keys.tenant_of(pk)
    except ValueError as problem:
        raise _Poison(f"the item has no tenant: {problem}") from None
    if queue not in queues.urls:
        raise _Poison(f"there is no queue {queue!r}")
    trace_id = keys.text(image, "trace", "")
    attributes = attributes_of(event_type, event_id, tenant_id, dedupe_key, trace_id=trace_id)
    fifo = queues.urls[queue].endswith(".fifo")
    group = pk if fifo else in_key(tenant_id)
    return queue, SqsMessage(event_id, group, whole(event_type, payload), attributes, delay_seconds)


def _refused(image: Raw, reason: str) -> SqsMessage:
    """The item itself, with why it was refused: `minichat dlq redrive outbox-relay` tries it again."""
    body = json.dumps({"item": image}, ensure_ascii=True, default=str)
    event_id = keys.text(image, "sk", "unknown")
    return SqsMessage(event_id, "outbox-relay", body, {"reason": reason, "event_id": event_id})
