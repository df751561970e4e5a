"""Events sent once more: from the outbox, which keeps them for seven days, or from a dead-letter queue.

All of it may be repeated and may overlap: consumers recognize events they have seen.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import TenantId, micros
from minichat.events import dead_letters
from minichat.events.dead_letters import DeadLetter
from minichat.events.sqs import REDRIVEN, SqsMessage, send_one
from minichat.observability import logger
from minichat.services.relay import DEAD_LETTERS, relay
from minichat.settings import Queues
from minichat.storage import keys, scan
from minichat.storage.keys import Raw

BATCH = 100
MARGIN = timedelta(minutes=1)
"""Lambda gives the time of a lost batch only roughly."""


@dataclass(frozen=True, slots=True)
class Range:
    """Events of the outbox written from `since` to before `until`, of a tenant and a queue, or of all."""

    since: datetime
    until: datetime
    tenant_id: TenantId | None = None
    queue: str | None = None


def republish(wanted: Range, queues: Queues, *, again: str, dry_run: bool = False) -> Iterator[Counter[str]]:
    """Sends a range of the outbox again, and yields after each batch how many events went to which queue.

    `again` differs from one use to the next, so that FIFO queues do not drop repeated events. "refused" counts those
    that can never be sent, now in the relay's dead-letter queue; "unsent" those that were not taken this time.
    Raises ServiceUnavailable when the outbox cannot be read; the yielded counts are sent by then.
    """
    batch: list[Raw] = []
    for image in scan.outbox(wanted.since, wanted.until):
        if wanted.tenant_id is not None and not scan.is_of(image, wanted.tenant_id):
            continue
        if wanted.queue is not None and _queue_of(image) != wanted.queue:
            continue
        batch.append(image)
        if len(batch) == BATCH:
            yield _sent(batch, queues, again, dry_run)
            batch = []
    if batch:
        yield _sent(batch, queues, again, dry_run)


def _sent(batch: list[Raw], queues: Queues, again: str, dry_run: bool) -> Counter[str]:
    if dry_run:
        return Counter(_queue_of(image) for image in batch)
    relayed = relay(batch, queues, again=again)
    return Counter(relayed.sent) + Counter(refused=relayed.refused, unsent=len(relayed.again))


def _queue_of(image: Raw) -> str:
    return keys.text(image, "queue", "refused")


Redriven = Literal["sent", "kept", "failed"]


def redrive(
    queue: str, queues: Queues, began: datetime, *, only: str | None = None, dry_run: bool = False
) -> Iterator[tuple[DeadLetter, Redriven]]:
    """Sends the messages of a dead-letter queue back to their queue, one by one, and yields each one's fate.

    With `only`, sends the message of that event alone. A message leaves the dead-letter queue after it was sent.
    Messages that arrive after `began`, because they failed again, stay. So does a message that its queue does not take
    now or that cannot be parsed; the others go on.
    """
    url, again = queues.dead_letters[queue], f"#{micros(began)}"
    first = began.replace(microsecond=began.microsecond // 1000 * 1000)  # SQS counts milliseconds
    kept: list[DeadLetter] = []
    try:
        for letter in dead_letters.waiting(url):
            if only not in (None, letter.attributes.get("event_id")) or letter.sent_at >= first:
                kept.append(letter)
                continue
            if dry_run:
                kept.append(letter)
                yield letter, "kept"
                continue
            try:
                _send_back(queue, queues, letter, again)
            except (ServiceUnavailable, *_UNHEARD_OF):
                logger.exception(
                    "a dead letter cannot be sent",
                    extra={"queue": queue, "event_id": letter.attributes.get("event_id")},
                )
                kept.append(letter)
                yield letter, "failed"
                continue
            dead_letters.delete(url, letter)
            yield letter, "sent"
    finally:
        for letter in kept:
            dead_letters.release(url, letter)


_UNHEARD_OF = (LookupError, TypeError, ValueError, RecursionError)
"""What parsing raises for a message that is not ours."""


def _send_back(queue: str, queues: Queues, letter: DeadLetter, again: str) -> None:
    if queue != DEAD_LETTERS:
        attributes = {name: value for name, value in letter.attributes.items() if name != "reason"}
        attributes[REDRIVEN] = again.removeprefix("#")
        event_id = attributes.get("event_id", letter.receipt[:80])
        send_one(queues.urls[queue], SqsMessage(event_id, letter.group, letter.body, attributes), again=again)
        return
    said: dict[str, Any] = json.loads(letter.body)
    if "item" in said:
        if relay([said["item"]], queues, again=again).again:
            raise ServiceUnavailable
        return
    lost = said["DDBStreamBatchInfo"]
    since, until = (
        datetime.fromisoformat(lost[f"approximateArrivalOf{which}Record"].replace("Z", "+00:00"))
        for which in ("First", "Last")
    )
    wanted = Range(since - MARGIN, until + MARGIN)
    if any(batch["unsent"] for batch in list(republish(wanted, queues, again=again))):
        raise ServiceUnavailable
