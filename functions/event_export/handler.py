"""DynamoDB Streams to consumers of others: copies of audit and usage events of the outbox."""

from typing import Any

from minichat.events import sqs
from minichat.observability import begin, count, emit, logger
from minichat.services.event_export import export
from minichat.settings import current

sqs.connect(current())


def handler(event: dict[str, Any], context: object) -> dict[str, list[dict[str, str]]]:
    """The first record that a place did not take, as a partial batch response: it and all later ones come again."""
    del context
    begin()
    records = event["Records"]
    settings = current()
    exported = export([record["dynamodb"].get("NewImage", {}) for record in records], settings.export, settings.queues)
    for place, number in exported.sent.items():
        count("exported_total", number, place=place)
    emit(settings.metrics_namespace)
    logger.info(
        "exported",
        extra={
            "records": len(records),
            "sent": exported.sent,
            "refused": exported.refused,
            "again": len(exported.again),
        },
    )
    failed = [records[number]["dynamodb"]["SequenceNumber"] for number in sorted(exported.again)[:1]]
    return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}
