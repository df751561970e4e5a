"""DynamoDB Streams to SQS: sends every new item of the outbox as a message."""

import re
from typing import Any
from uuid import UUID

from minichat.domain.identity import instant_of
from minichat.events import sqs
from minichat.moment import now
from minichat.observability import begin, count, emit, logger, observe
from minichat.services.relay import relay
from minichat.settings import current
from minichat.storage import keys

sqs.connect(current())

_IS_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_TOLD = {"event_id": "sk", "event_type": "type", "queue": "queue", "trace_id": "trace"}


def handler(event: dict[str, Any], context: object) -> dict[str, list[dict[str, str]]]:
    """The first record that could not be sent, as a partial batch response: Lambda repeats it and all later ones.

    Later records that were sent are then sent twice, in order.
    """
    del context
    begin()
    records = event["Records"]
    images = [record["dynamodb"].get("NewImage", {}) for record in records]
    relayed = relay(images, current().queues)
    lag_ms = _lag_ms(images)
    observe("outbox_relay_lag_ms", lag_ms, "Milliseconds")
    for queue, number in relayed.sent.items():
        count("outbox_relayed_total", number, queue=queue)
    emit(current().metrics_namespace)
    logger.info(
        "relayed",
        extra={
            "records": len(records),
            "sent": relayed.sent,
            "refused": relayed.refused,
            "again": len(relayed.again),
            "outbox_relay_lag_ms": lag_ms,
            "events": [
                {name: told for name, attribute in _TOLD.items() if (told := keys.text(image, attribute, ""))}
                for number, image in enumerate(images)
                if number not in relayed.again
            ],
        },
    )
    failed = [records[number]["dynamodb"]["SequenceNumber"] for number in relayed.again[:1]]
    return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}


def _lag_ms(images: list[Any]) -> int:
    """The age of the oldest event, from the time in its id: the stream's own time is rounded to seconds."""
    ids = [one for image in images if _IS_ID.fullmatch(one := keys.text(image, "sk", ""))]
    # Ids sort by their time.
    written = instant_of(UUID(min(ids))) if ids else now()
    return max(round((now() - written).total_seconds() * 1000), 0)
