"""Events and answers are what Lambda makes of them: AWS's own models of the events read ours."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import boto3
import pytest
from aws_lambda_powertools.utilities.parser.models import DynamoDBStreamModel, S3Model, SqsModel

from minichat import moment
from minichat.local import buckets
from minichat.local.lambda_events import (
    EVENT_MAX_BYTES,
    LambdaContext,
    batches,
    failures,
    queue_record,
    scheduled_event,
)
from minichat.local.schedules import invoked, scheduled
from minichat.local.tables import load_template, project_root
from minichat.settings import Store
from tests.support.events.queue_access import QueueAccess, Record, a_change, failed

TEMPLATE = load_template(project_root() / "template.yaml")


@pytest.fixture
def events(store: Store) -> QueueAccess:
    """Queues of this test's own."""
    return QueueAccess.made_at(str(store.endpoint), store.region)


def test_a_message_is_handed_over_as_lambda_does(events: QueueAccess) -> None:
    for queue in ("usage", "chat-cleanup"):
        events.send(queue, '{"a": 1}', group="T#t", event_id="e-1")
    url = events.settings.urls["usage"]
    binary = {"DataType": "Binary", "BinaryValue": b"\xf0\x9f"}
    events.client.send_message(QueueUrl=url, MessageBody="x", MessageAttributes={"raw": binary}, MessageGroupId="t")
    handed = [one for queue in ("usage", "chat-cleanup") for one in events.receive(events.settings.urls[queue])]
    assert len(SqsModel.model_validate({"Records": json.loads(json.dumps(handed))}).Records) == 3
    fifo = next(one for one in handed if one["eventSourceARN"].endswith(".fifo"))
    raw = next(one for one in handed if one["body"] == "x")
    standard = next(one for one in handed if one not in (fifo, raw))
    of_any = {"ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"}
    assert set(standard["attributes"]) == {*of_any, "MessageGroupId"}
    assert set(fifo["attributes"]) == {*of_any, "MessageGroupId", "MessageDeduplicationId", "SequenceNumber"}
    assert all(type(value) is str for one in handed for value in one["attributes"].values())
    assert standard["messageAttributes"] == {
        "event_id": {"stringValue": "e-1", "stringListValues": [], "binaryListValues": [], "dataType": "String"}
    }
    assert raw["messageAttributes"] == {
        "raw": {"binaryValue": "8J8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"}
    }
    assert (standard["eventSource"], standard["awsRegion"]) == ("aws:sqs", "us-east-1")


def test_a_message_of_s3_is_the_event_of_a_bucket(events: QueueAccess) -> None:
    endpoint = str(events.settings.endpoint)
    urls = {"AttachmentIngestQueue": events.settings.urls["attachment-ingest"]}
    bucket = buckets.create(project_root(), endpoint, "us-east-1", urls, name=f"uploads-{uuid4().hex[:12]}")
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    s3.put_object(Bucket=bucket["MINICHAT_ATTACHMENTS__BUCKET"], Key="t/c/a b+c&é", Body=b"12345")
    tested, created = (json.loads(one["body"]) for one in events.all_of(urls["AttachmentIngestQueue"]))
    assert tested["Event"] == "s3:TestEvent"
    (record,) = S3Model.model_validate(created).Records
    put = record.s3.object
    assert put is not None
    assert (put.key, put.size) == ("t/c/a+b%2Bc%26%C3%A9", 5)
    assert int(str(put.sequencer), 16) > 0


def test_a_change_is_handed_over_as_lambda_does() -> None:
    image = {
        "pk": {"S": "p"},
        "sk": {"S": "s"},
        "n": {"N": "1"},
        "m": {"M": {"b": {"B": b"\xf0\x9f"}, "l": {"BS": [b"x"]}}},
    }
    identity = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
    handed = [
        a_change("INSERT", 1, image),
        a_change("MODIFY", 2, image),
        a_change("REMOVE", 3, None, userIdentity=identity),
    ]
    assert len(DynamoDBStreamModel.model_validate({"Records": json.loads(json.dumps(handed))}).Records) == 3
    inserted, _, removed = handed
    assert set(inserted) == {
        "eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb", "eventSourceARN",
    }  # fmt: skip
    assert set(inserted["dynamodb"]) == {
        "ApproximateCreationDateTime", "Keys", "NewImage", "SequenceNumber", "SizeBytes", "StreamViewType",
    }  # fmt: skip
    assert type(inserted["dynamodb"]["ApproximateCreationDateTime"]) is float
    assert type(inserted["dynamodb"]["SequenceNumber"]) is str
    assert inserted["dynamodb"]["NewImage"]["m"] == {"M": {"b": {"B": "8J8="}, "l": {"BS": ["eA=="]}}}
    assert inserted["awsRegion"] == "eu-central-1"
    assert "NewImage" not in removed["dynamodb"]
    assert removed["userIdentity"] == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}


def test_a_schedule_sends_what_scheduler_does_and_waits_for_nobody() -> None:
    (watchdog,) = (one for one in scheduled(TEMPLATE) if one.name == "OrphanWatchdogFunction")
    seen: list[tuple[Record, Any]] = []
    assert invoked(
        watchdog, lambda event, context: seen.append((event, context)), datetime(2026, 11, 21, 1, 2, 3, 4, UTC)
    )
    assert not invoked(watchdog, lambda *_: 1 / 0, moment.now())
    ((event, context),) = seen
    assert event["time"] == "2026-11-21T01:02:03Z"
    assert (event["source"], event["detail-type"], event["detail"]) == ("aws.scheduler", "Scheduled Event", "{}")
    assert event.keys() == scheduled_event("x", moment.now()).keys()
    assert len(json.dumps(event)) < 1024  # of the mebibyte that an asynchronous invocation takes
    assert 0 < context.get_remaining_time_in_millis() <= 50_000


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        (None, []),
        ({}, []),
        ({"batchItemFailures": None}, []),
        (failed(), []),
        (failed("2"), ["2"]),
        (failed("2", "1"), ["2", "1"]),
        (failed(""), None),
        (failed(None), None),
        (failed("2", "9"), None),
        ({"batchItemFailures": [{"itemidentifier": "2"}]}, None),
        ({"batchItemFailures": ["2"]}, None),
        ({"batchItemFailures": "2"}, None),
    ],
)
def test_an_answer_means_what_lambda_takes_it_for(answer: object, meant: list[str] | None) -> None:
    assert failures(answer, ["1", "2"]) == meant


def test_an_invocation_is_never_larger_than_lambda_allows() -> None:
    large = [{"messageId": str(number), "body": "é" * 500_000} for number in range(10)]
    made = list(batches(large, 10))
    assert [len(batch) for batch in made] == [6, 4]
    assert all(len(json.dumps({"Records": one}, ensure_ascii=False).encode()) <= EVENT_MAX_BYTES for one in made)
    assert [len(batch) for batch in batches([{}] * 25, 10)] == [10, 10, 5]
    assert list(batches([], 10)) == []


def test_a_context_tells_how_much_time_is_left() -> None:
    context = LambdaContext("AuditFunction", timeout=30)
    assert 29_000 < context.get_remaining_time_in_millis() <= 30_000
    assert context.invoked_function_arn.endswith(":function:AuditFunction")
    assert (
        queue_record({"MessageId": "m", "ReceiptHandle": "r", "Body": "", "MD5OfBody": ""}, "a:b:c:d")["attributes"]
        == {}
    )
