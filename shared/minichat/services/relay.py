"""Outbox items become messages, in the order of each chat (events-and-workers 1).

A record that can never be delivered goes to the relay's dead-letter queue at once, unchanged and with the reason, so
that nothing behind it waits. Everything may be delivered more than once: consumers recognize events they have seen.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from minichat.domain.errors import ServiceUnavailable
from minichat.events.sqs import SqsMessage, Unsent, send, send_one
from minichat.observability import count
from minichat.services import outbox_records
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


def relay(images: Sequence[Raw], queues: Queues, *, again: str = "") -> Relayed:
    """Sends each item's event to its queue, in the order given.

    `Relayed.again` has the positions of undelivered items. `again` keeps FIFO queues from dropping repeated events.
    """
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    messages: dict[int, SqsMessage] = {}
    poison: dict[int, str] = {}
    for number, image in enumerate(images):
        try:
            record = outbox_records.read(image)
        except outbox_records.UndeliverableItem as problem:
            poison[number] = str(problem)
            continue
        if (url := queues.urls.get(record.queue)) is None:
            poison[number] = f"there is no queue {record.queue!r}"
            continue
        numbers[record.queue].append(number)
        messages[number] = record.message(fifo=url.endswith(".fifo"))
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


def _refused(image: Raw, reason: str) -> SqsMessage:
    """The item itself, with why it was refused: `minichat dlq redrive outbox-relay` tries it again."""
    body = json.dumps({"item": image}, ensure_ascii=True, default=str)
    event_id = keys.text(image, "sk", "unknown")
    return SqsMessage(event_id, "outbox-relay", body, {"reason": reason, "event_id": event_id})
