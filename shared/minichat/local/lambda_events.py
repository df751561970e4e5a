"""Events as Lambda hands them to functions, made from the local engines' responses, and the check of the answers.

Members, their types and which of them may be missing are those of AWS's examples (Lambda Developer Guide: "Using Lambda
with Amazon SQS", "Using AWS Lambda with Amazon DynamoDB"; EventBridge Scheduler User Guide). Powertools' models of the
same events read them: tests/integration/test_local_sources.py.
"""

import base64
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

Record = dict[str, Any]

ACCOUNT = "000000000000"
EVENT_MAX_BYTES = 6 * 1024 * 1024
"""Of one invocation: Lambda hands over fewer records than `BatchSize` when more would not fit (Lambda quotas)."""


@dataclass(frozen=True, slots=True)
class LambdaContext:
    """The context that a handler gets with its invocation; `timeout` is in seconds."""

    function_name: str
    timeout: int
    memory_limit_in_mb: int = 1024
    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    began: float = field(default_factory=time.monotonic)

    @property
    def invoked_function_arn(self) -> str:
        """Which function this is."""
        return function_arn(self.function_name)

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda would end the invocation; here nothing does."""
        return max(int((self.timeout - (time.monotonic() - self.began)) * 1000), 0)


def function_arn(name: str) -> str:
    """The ARN of a function of this machine."""
    return f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"


def queue_record(message: Any, source_arn: str) -> Record:
    """A message from `ReceiveMessage`, with all of its attributes, as a record of an event.

    Every system attribute is a string, numbers and times too.
    """
    record = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": {name: str(value) for name, value in message.get("Attributes", {}).items()},
        "messageAttributes": {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": source_arn,
        "awsRegion": source_arn.split(":")[3],
    }
    if "MD5OfMessageAttributes" in message:
        record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return record


def _attribute(value: Any) -> Record:
    """Drops the kind of value that the attribute does not have."""
    told: Record = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if "StringValue" in value:
        told["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        told["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return told


def stream_record(record: Any, stream_arn: str) -> Record:
    """A record from `GetRecords` as a record of an event; a missing image is left out."""
    change = record["dynamodb"]
    created = change["ApproximateCreationDateTime"]
    told: Record = {
        "eventID": record.get("eventID", uuid4().hex),
        "eventName": record["eventName"],
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": stream_arn.split(":")[3],
        "dynamodb": {
            "ApproximateCreationDateTime": created.timestamp() if isinstance(created, datetime) else float(created),
            "SequenceNumber": change["SequenceNumber"],
            "SizeBytes": int(change.get("SizeBytes", 0)),
            "StreamViewType": change["StreamViewType"],
            **{name: encoded(change[name]) for name in ("Keys", "NewImage", "OldImage") if change.get(name)},
        },
        "eventSourceARN": stream_arn,
    }
    if identity := record.get("userIdentity"):
        # Present when DynamoDB deleted an expired item.
        told["userIdentity"] = {"type": identity["Type"], "principalId": identity["PrincipalId"]}
    return told


def encoded(image: Any) -> Any:
    """An item as JSON: binary values in base64, at any depth."""
    if isinstance(image, bytes):
        return base64.b64encode(image).decode()
    if isinstance(image, dict):
        return {name: encoded(value) for name, value in image.items()}
    if isinstance(image, list | set | tuple):
        return [encoded(value) for value in image]
    return image


def scheduled_event(schedule: str, at: datetime) -> Record:
    """The event that EventBridge Scheduler sends for a schedule without `Input`; `detail` is a string."""
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": ACCOUNT,
        "time": f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "region": "us-east-1",
        "resources": [f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/default/{schedule}"],
        "detail": "{}",
    }


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A batch of a shard that was given up, and why."""

    function: str
    shard: str
    records: Sequence[Record]
    condition: str
    attempts: int

    def told(self) -> Record:
        """What Lambda sends to an on-failure destination: the place of the batch, not the batch."""
        first, last = self.records[0], self.records[-1]
        return {
            "requestContext": {
                "requestId": str(uuid4()),
                "functionArn": function_arn(self.function),
                "condition": self.condition,
                "approximateInvokeCount": self.attempts,
            },
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "version": "1.0",
            "timestamp": _instant(time.time()),
            "DDBStreamBatchInfo": {
                "shardId": self.shard,
                "startSequenceNumber": first["dynamodb"]["SequenceNumber"],
                "endSequenceNumber": last["dynamodb"]["SequenceNumber"],
                "approximateArrivalOfFirstRecord": _instant(first["dynamodb"]["ApproximateCreationDateTime"]),
                "approximateArrivalOfLastRecord": _instant(last["dynamodb"]["ApproximateCreationDateTime"]),
                "batchSize": len(self.records),
                "streamArn": first.get("eventSourceARN", ""),
            },
        }


def _instant(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def batches(records: Sequence[Record], at_most: int) -> Iterator[list[Record]]:
    """Records in order, in batches of at most that many, each small enough for one invocation."""
    batch: list[Record] = []
    size = 0
    for record in records:
        length = len(json.dumps(record, ensure_ascii=False).encode())
        if batch and (len(batch) == at_most or size + length > EVENT_MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


def failures(answer: object, known: Sequence[str]) -> list[str] | None:
    """The records that an answer names for another delivery; None for all of them.

    An identifier that is empty, missing, misnamed or of none of these records means all of them; an answer that is
    null, empty, or has no list or an empty one means none (Lambda Developer Guide, "Reporting batch item failures").
    """
    told = answer.get("batchItemFailures") if isinstance(answer, dict) else answer
    if not told:
        return []
    if not isinstance(told, list):
        return None
    named = [one.get("itemIdentifier") if isinstance(one, dict) else None for one in told]
    return [str(one) for one in named] if set(named) <= set(known) else None
