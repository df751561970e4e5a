"""Lambda's event source mappings, for the local stack: the outbox's stream and the queues call their functions.

    python -m minichat.local.sources                    all mappings of template.yaml
    python -m minichat.local.sources UsageFunction …    those of these functions

Which function, how many records, what filter, how many attempts, where failures go: the template says. Events have the
shape that Lambda gives them. What Lambda keeps outside a function is kept outside it here too: the place in the stream
is in a file, so that a process that is killed goes on where it was, or a little before.
"""

import argparse
import base64
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from minichat.events import queues
from minichat.local.schedules import imported
from minichat.local.stack import attached
from minichat.local.tables import load_template, project_root
from minichat.observability import logger
from minichat.settings import current

IDLE_SECONDS = 0.2
LONG_POLL_SECONDS = 5
AT_ONCE = 5
"""Batches of a standard queue that are handled side by side: as many as Lambda begins with."""

Handler = Callable[[dict[str, Any], object], Any]
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mapping:
    """An event source of a function, as the template describes it."""

    function: str
    handler: str
    kind: str
    source: str
    properties: dict[str, Any]
    places: Path = Path()


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler is told of its invocation."""

    function_name: str
    timeout: int
    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    began: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda would end the invocation; here nothing does."""
        return max(int((self.timeout - (time.monotonic() - self.began)) * 1000), 0)


def mapped(template: dict[str, Any], places: Path = Path()) -> list[Mapping]:
    """Every event source mapping of the template; the source is the logical name of the nested stack's output.

    `places` is the folder that remembers how far streams have been read.
    """
    return [
        Mapping(
            name,
            resource["Properties"]["Handler"],
            event["Type"],
            event["Properties"].get("Stream") or event["Properties"]["Queue"],
            event["Properties"] | {"Timeout": resource["Properties"]["Timeout"]},
            places,
        )
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
        for event in resource["Properties"].get("Events", {}).values()
        if event["Type"] in {"DynamoDB", "SQS"}
    ]


def main() -> None:
    """Serves the mappings until the process is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("functions", nargs="*")
    parser.add_argument("--places", type=Path, default=Path(), help="the folder that remembers places in streams")
    parser.add_argument(
        "--fail-percent", type=int, default=0, help="so many invocations fail, half of them after their effect"
    )
    parser.add_argument("--state", type=Path, help="of a local stack that runs with --no-events")
    options = parser.parse_args()
    if options.state is not None:
        attached(options.state)
    queues.connect(current())
    known = mapped(load_template(project_root() / "template.yaml"), options.state or options.places)
    mappings = [mapping for mapping in known if not options.functions or mapping.function in options.functions]
    for mapping in mappings:
        handler = _failing(imported(mapping.handler), options.fail_percent)
        serve = _serve_stream if mapping.kind == "DynamoDB" else _serve_queue
        for _ in range(side_by_side(mapping)):
            threading.Thread(
                target=_for_ever, args=(serve, mapping, handler), name=mapping.function, daemon=True
            ).start()
    print("serving", *(mapping.function for mapping in mappings), flush=True)
    threading.Event().wait()


def side_by_side(mapping: Mapping) -> int:
    """How many batches of a source are handled at once; of what has an order it is one, whatever Lambda does."""
    if mapping.kind == "DynamoDB" or _url(mapping).endswith(".fifo"):
        return 1
    return min(AT_ONCE, int(mapping.properties.get("ScalingConfig", {}).get("MaximumConcurrency", AT_ONCE)))


def _failing(handler: Handler, percent: int) -> Handler:
    """The handler, some of whose invocations fail: consumers have to bear that."""

    def maybe(event: dict[str, Any], context: object) -> Any:
        fails = random.randrange(100) < percent  # noqa: S311  chance, not a secret
        if fails and random.random() < 0.5:  # noqa: S311  as above
            raise RuntimeError("failed on purpose, before the effect")
        answer = handler(event, context)
        if fails:
            raise RuntimeError("failed on purpose, after the effect")
        return answer

    return maybe if percent else handler


def _for_ever(serve: Callable[[Mapping, Handler], None], mapping: Mapping, handler: Handler) -> None:
    while True:
        try:
            serve(mapping, handler)
        except (ClientError, BotoCoreError):
            logger.exception("an event source does not answer", extra={"function": mapping.function})
            time.sleep(1)


def _invoke(mapping: Mapping, handler: Handler, records: Sequence[Record]) -> list[str] | None:
    """Which records failed, by the name that the function gives them; None when the whole invocation did."""
    context = Context(mapping.function, mapping.properties["Timeout"])
    try:
        answer = handler({"Records": list(records)}, context)
    except Exception:  # the edge of an invocation
        logger.exception("an invocation failed", extra={"function": mapping.function})
        return None
    return [failure["itemIdentifier"] for failure in (answer or {}).get("batchItemFailures", [])]


def _serve_queue(mapping: Mapping, handler: Handler) -> None:
    url, client = _url(mapping), queues.client()
    source_arn = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    while True:
        answer = client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=mapping.properties["BatchSize"],
            WaitTimeSeconds=LONG_POLL_SECONDS,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            continue
        failed = _invoke(mapping, handler, [_queue_record(message, source_arn) for message in messages])
        if failed is None:
            continue
        done = [message for message in messages if message["MessageId"] not in failed]
        if done:
            client.delete_message_batch(
                QueueUrl=url,
                Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(done)],
            )


def _url(mapping: Mapping) -> str:
    queue = mapping.source.removeprefix("Queues.Outputs.").removesuffix("Arn")
    return next(
        url
        for url in current().queues.urls.values()
        if url.rpartition("/")[2].removesuffix(".fifo") == f"minichat-{queue}"
    )


def _queue_record(message: Any, source_arn: str) -> Record:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {
            name: {
                "stringValue": value.get("StringValue"),
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value["DataType"],
            }
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": source_arn,
        "awsRegion": current().store.region,
    }


def _serve_stream(mapping: Mapping, handler: Handler) -> None:
    store = current().store
    options: dict[str, Any] = {"region_name": store.region, "endpoint_url": store.endpoint}
    # Engines name shards more briefly than AWS does.
    streams = boto3.client("dynamodbstreams", config=Config(parameter_validation=False), **options)
    table = boto3.client("dynamodb", **options).describe_table(TableName=store.outbox_table)["Table"]
    arn = table["LatestStreamArn"]
    served: set[str] = set()
    while True:
        for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
            if shard["ShardId"] not in served:
                served.add(shard["ShardId"])
                _serve_shard(streams, arn, shard["ShardId"], mapping, handler)
        time.sleep(IDLE_SECONDS)


def _serve_shard(streams: Any, arn: str, shard: str, mapping: Mapping, handler: Handler) -> None:
    """Serves a shard until it is closed and read to its end; engines of this machine have one that is never closed."""
    place = _Place(mapping.places, arn, shard)
    pattern = _pattern(mapping)
    iterator = _iterator(streams, arn, shard, place.read())
    while iterator is not None:
        answer = streams.get_records(ShardIterator=iterator, Limit=mapping.properties["BatchSize"])
        records = [_stream_record(record, arn) for record in answer["Records"]]
        matching = [record for record in records if _matches(record, pattern)]
        if matching:
            deliver(mapping, handler, matching, attempts=mapping.properties["MaximumRetryAttempts"])
        if records:
            place.write(records[-1]["dynamodb"]["SequenceNumber"])
        else:
            time.sleep(IDLE_SECONDS)
        iterator = answer.get("NextShardIterator")


def deliver(mapping: Mapping, handler: Handler, records: list[Record], *, attempts: int) -> None:
    """Calls the function until every record is delivered or given up, as the mapping says."""
    pause = 0.1
    while records:
        failed = _invoke(mapping, handler, records)
        if failed == []:
            return
        if failed is None and len(records) > 1 and mapping.properties.get("BisectBatchOnFunctionError"):
            middle = len(records) // 2
            deliver(mapping, handler, records[:middle], attempts=attempts - 1)
            deliver(mapping, handler, records[middle:], attempts=attempts - 1)
            return
        if failed:
            numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
            records = records[min(numbers.index(number) for number in failed) :]
        if attempts <= 0:
            _give_up(mapping, records)
            return
        attempts -= 1
        time.sleep(pause)
        pause = min(pause * 2, 5)


def _give_up(mapping: Mapping, records: list[Record]) -> None:
    """What Lambda sends to an on-failure destination: where the batch is, and not the batch."""
    first, last = records[0]["dynamodb"], records[-1]["dynamodb"]
    told = {
        "requestContext": {"functionArn": mapping.function, "condition": "RetryAttemptsExhausted"},
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(),
        "DDBStreamBatchInfo": {
            "startSequenceNumber": first["SequenceNumber"],
            "endSequenceNumber": last["SequenceNumber"],
            "approximateArrivalOfFirstRecord": _instant(first),
            "approximateArrivalOfLastRecord": _instant(last),
            "batchSize": len(records),
        },
    }
    url = current().queues.dead_letters["outbox-relay"]
    queues.client().send_message(QueueUrl=url, MessageBody=json.dumps(told))


def _instant(image: Record) -> str:
    return datetime.fromtimestamp(image["ApproximateCreationDateTime"], UTC).isoformat()


class _Place:
    """How far a shard has been delivered."""

    def __init__(self, folder: Path, arn: str, shard: str) -> None:
        self._file = folder / f"{shard}.place"
        self._arn = arn

    def read(self) -> str | None:
        try:
            said = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        # A stream made anew, as engines that keep nothing make theirs, has places of its own.
        return str(said["place"]) if said["stream"] == self._arn else None

    def write(self, number: str) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps({"stream": self._arn, "place": number}), encoding="utf-8")
        draft.replace(self._file)


def _iterator(streams: Any, arn: str, shard: str, after: str | None) -> str | None:
    where: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
    if after is not None:
        where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
    try:
        answer = streams.get_shard_iterator(StreamArn=arn, ShardId=shard, **where)
    except ClientError:
        if after is None:
            raise
        return _iterator(streams, arn, shard, None)
    iterator: str | None = answer.get("ShardIterator")
    return iterator


def _stream_record(record: Any, arn: str) -> Record:
    change = record["dynamodb"]
    created = change["ApproximateCreationDateTime"]
    return {
        "eventID": record.get("eventID", uuid4().hex),
        "eventName": record["eventName"],
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": current().store.region,
        "eventSourceARN": arn,
        "dynamodb": {
            **change,
            "ApproximateCreationDateTime": created.timestamp() if isinstance(created, datetime) else float(created),
            "Keys": _encoded(change.get("Keys", {})),
            "NewImage": _encoded(change.get("NewImage", {})),
        },
    }


def _encoded(image: Any) -> Any:
    """Binary values as Lambda has them in JSON."""
    return {
        name: {kind: base64.b64encode(value).decode() if kind == "B" else value for kind, value in typed.items()}
        for name, typed in image.items()
    }


def _pattern(mapping: Mapping) -> dict[str, list[str]]:
    """The filter of a mapping: a record matches when each member is one of the values. That much is used here."""
    filters = mapping.properties.get("FilterCriteria", {}).get("Filters", [])
    assert len(filters) <= 1
    pattern: dict[str, list[str]] = json.loads(filters[0]["Pattern"]) if filters else {}
    return pattern


def _matches(record: Record, pattern: dict[str, list[str]]) -> bool:
    return all(record.get(name) in allowed for name, allowed in pattern.items())


if __name__ == "__main__":
    main()
