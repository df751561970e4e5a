"""The local stack's event sources do what Lambda's would: batches, retries, halves, order, and an end to trying."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import boto3
import pytest
from aws_lambda_powertools.utilities.parser.models import (
    DynamoDBStreamLambdaOnFailureDestinationModel,
    DynamoDBStreamModel,
)
from botocore.config import Config

from minichat import moment
from minichat.domain.identity import ChatId, TenantId
from minichat.events import sqs
from minichat.events.base import Queue as QueueName
from minichat.events.payloads import ChatDeleted
from minichat.local import queues, streams
from minichat.local.lambda_events import stream_record
from minichat.local.mappings import Handler, Mapping, mapped
from minichat.local.sources import Queue, poll, side_by_side
from minichat.local.streams import Stream, deliver, follow, hand_out, matches, pattern, ready
from minichat.local.tables import load_template, project_root
from minichat.services.redrive import redrive
from minichat.settings import Store, current
from minichat.storage import outbox
from tests.support.domain.builders import a_call
from tests.support.events.queue_access import FIRST_NUMBER, STREAM, QueueAccess, Record, a_change, failed

TEMPLATE = load_template(project_root() / "template.yaml")
MAPPINGS = {one.function: one for one in mapped(TEMPLATE)}
RELAY, USAGE, CLEANUP = (MAPPINGS[name] for name in ("OutboxRelayFunction", "UsageFunction", "ChatCleanupFunction"))
ATTEMPTS = RELAY.properties["MaximumRetryAttempts"]
HIDDEN_SECONDS = 1
PATIENCE_SECONDS = 30


@pytest.fixture
def events(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueAccess]:
    """Queues that this process uses."""
    where = {name: str(getattr(store, name)) for name in ("endpoint", "conversation_table", "outbox_table")}
    environment = {f"MINICHAT_STORE__{name.upper()}": value for name, value in where.items()}
    with QueueAccess.used_here(store, monkeypatch, **environment) as access:
        monkeypatch.setattr("minichat.local.streams.time.sleep", lambda _: None)
        yield access


def records(count: int, *, of: Callable[[int], str] = str, age: timedelta = timedelta()) -> list[Record]:
    """Records of a stream, as many, each of an item `of` its own."""
    at = moment.now() - age
    return [
        a_change("INSERT", number, {"pk": {"S": of(number)}, "sk": {"S": str(number)}}, at) for number in range(count)
    ]


def numbers(event: Record) -> list[int]:
    return [int(one["dynamodb"]["SequenceNumber"]) - FIRST_NUMBER for one in event["Records"]]


def until(holds: Callable[[], object]) -> None:
    """Waits for a condition that another thread or process makes true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def polled(access: QueueAccess, mapping: Mapping, queue: str, handler: Handler) -> int:
    return poll(Queue.at(access.settings.urls[queue]), mapping, handler, wait_seconds=3 * HIDDEN_SECONDS)


def hidden_for(access: QueueAccess, queue: str, seconds: int) -> None:
    url = access.settings.urls[queue]
    access.client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(seconds)})


def test_an_answer_after_the_timeout_does_not_count(events: QueueAccess) -> None:
    events.send("usage", "late")
    hurried = Mapping("UsageFunction", "h", "SQS", "s", USAGE.properties | {"Timeout": 0})
    handed: list[Record] = []
    queue = Queue.at(events.settings.urls["usage"])
    events.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "0"})
    for _ in range(2):
        assert poll(queue, hurried, lambda event, _: handed.extend(event["Records"])) == 1
    assert [one["attributes"]["ApproximateReceiveCount"] for one in handed] == ["1", "2"]


@pytest.mark.parametrize("trouble", ["named", "raised", "an unknown name", "an empty name"])
def test_what_failed_is_hidden_for_its_time_and_comes_again_with_a_higher_count(
    events: QueueAccess, trouble: str
) -> None:
    hidden_for(events, "usage", HIDDEN_SECONDS)
    events.send("usage", "good")
    events.send("usage", "bad")
    seen: defaultdict[str, list[int]] = defaultdict(list)
    began: list[float] = []

    def handler(event: Record, _: object) -> Any:
        began.append(time.monotonic())
        for record in event["Records"]:
            seen[record["body"]].append(int(record["attributes"]["ApproximateReceiveCount"]))
        bad = [record["messageId"] for record in event["Records"] if record["body"] == "bad"]
        if len(seen["bad"]) > 2 or not bad:
            return None
        if trouble == "raised":
            raise RuntimeError("no")
        return failed({"an unknown name": str(uuid4()), "an empty name": ""}.get(trouble, bad[0]))

    while len(seen["bad"]) < 3:
        assert polled(events, USAGE, "usage", handler) > 0
    assert seen["bad"] == [1, 2, 3]
    # Only a name tells the good one from the bad one.
    assert seen["good"] == ([1] if trouble == "named" else [1, 2, 3])
    assert min(after - before for before, after in pairwise(began)) > HIDDEN_SECONDS / 2
    assert poll(Queue.at(events.settings.urls["usage"]), USAGE, handler) == 0


def test_what_came_too_often_is_moved_as_it_was(events: QueueAccess) -> None:
    hidden_for(events, "usage", 0)
    events.send("usage", "bad", event_id="e-1")
    count = 0

    def handler(event: Record, _: object) -> Any:
        nonlocal count
        count += len(event["Records"])
        raise RuntimeError("never")

    while poll(Queue.at(events.settings.urls["usage"]), USAGE, handler):
        pass
    assert count == 12
    (letter,) = events.dead("usage")
    assert (letter["body"], letter["messageAttributes"]["event_id"]["stringValue"]) == ("bad", "e-1")
    assert letter["attributes"]["DeadLetterQueueSourceArn"].startswith("arn:aws:sqs:")
    assert letter["attributes"]["MessageGroupId"] == "tenant"


def test_a_message_that_failed_holds_up_its_group_and_no_other(events: QueueAccess) -> None:
    hidden_for(events, "chat-cleanup", HIDDEN_SECONDS)
    for group in ("one", "two"):
        for number in range(2):
            events.send("chat-cleanup", f"{group} {number}", group=group)
    told: list[str] = []

    def handler(event: Record, _: object) -> Any:
        told.extend(record["body"] for record in event["Records"])
        if told.count("one 0") < 3:
            # As every consumer does: nothing of a group happens after what failed in it.
            return failed(*(one["messageId"] for one in event["Records"] if one["body"].startswith("one")))
        return None

    while any(events.depth("chat-cleanup")):
        polled(events, CLEANUP, "chat-cleanup", handler)
    assert [body for body in told if body.startswith("two")] == ["two 0", "two 1"]
    assert told.count("one 0") == 3
    of_one = [body for body in told if body.startswith("one")]
    assert all(of_one[at - 1] == "one 0" for at, body in enumerate(of_one) if body == "one 1")


def test_a_group_is_hidden_from_others_while_a_message_of_it_is_handled(events: QueueAccess) -> None:
    events.send("chat-cleanup", "one 0", group="one")
    events.send("chat-cleanup", "one 1", group="one")
    narrow = Mapping("ChatCleanupFunction", "h", "SQS", "s", CLEANUP.properties | {"BatchSize": 1})
    queue = Queue.at(events.settings.urls["chat-cleanup"])
    at_once: list[int] = []

    def handler(*_: object) -> None:
        at_once.append(len(events.receive(queue.url)))

    assert poll(queue, narrow, handler) == 1
    assert at_once == [0]


def test_the_same_message_within_five_minutes_is_one_and_a_repetition_that_is_meant_is_another(
    events: QueueAccess,
) -> None:
    url = events.settings.urls["chat-cleanup"]
    message = sqs.SqsMessage("e-1", "group", "{}")
    for again in ("", "", "#1"):
        assert sqs.send(url, [message], again=again) == []
    # Also after the first one is gone.
    assert len(events.all_of(url)) == 2
    assert sqs.send(url, [message]) == []
    assert events.all_of(url) == []


def test_queues_of_an_earlier_template_become_those_of_this_one(events: QueueAccess) -> None:
    prefix = f"test-{uuid4().hex[:12]}"
    endpoint = str(events.settings.endpoint)
    made = queues.create(project_root(), endpoint, "us-east-1", prefix)["ChatCleanupQueue"]
    events.client.set_queue_attributes(QueueUrl=made, Attributes={"VisibilityTimeout": "5"})
    again = queues.create(project_root(), endpoint, "us-east-1", prefix)["ChatCleanupQueue"]
    said = events.client.get_queue_attributes(QueueUrl=again, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert said == {"VisibilityTimeout": "360"}


def test_every_mapping_of_the_template_is_served() -> None:
    served = {(one.function, one.kind) for one in MAPPINGS.values()}
    assert {("OutboxRelayFunction", "DynamoDB"), ("UsageFunction", "SQS"), ("ChatCleanupFunction", "SQS")} <= served
    assert ATTEMPTS > 0


def test_what_has_an_order_is_handled_one_after_the_other_and_the_rest_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls = {
        name: f"http://q/minichat-{name.title().replace('-', '')}Queue{'.fifo' if name in _ORDERED else ''}"
        for name in (*get_args(QueueName), "webhook")
    }
    monkeypatch.setenv("MINICHAT_QUEUES__URLS", json.dumps(urls))
    current.cache_clear()
    at_once = {one.function: side_by_side(one) for one in MAPPINGS.values()}
    current.cache_clear()
    assert at_once == {
        "OutboxRelayFunction": 1,
        "EventExportFunction": 1,
        "WebhookFunction": 5,
        "ChatCleanupFunction": 1,
        "ThreadSummaryFunction": 1,
        "AttachmentCleanupFunction": 5,
        "AttachmentIngestFunction": 5,
        "AuditFunction": 5,
        "UsageFunction": 5,
    }


_ORDERED = {"chat-cleanup", "thread-summary"}


def test_a_record_that_breaks_the_function_is_found_by_halves_and_given_up_alone(events: QueueAccess) -> None:
    delivered: list[int] = []

    def handler(event: Record, _: object) -> Any:
        if 37 in numbers(event):
            raise RuntimeError("cannot take 37")
        delivered.extend(numbers(event))
        return failed()

    batch = records(100)
    deliver(RELAY, handler, batch, shard="shard-1", attempts=ATTEMPTS)
    assert delivered == [number for number in range(100) if number != 37]
    (given_up,) = events.dead("outbox-relay")
    said = json.loads(given_up["body"])
    DynamoDBStreamLambdaOnFailureDestinationModel.model_validate(said)
    assert said["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert (
        said["DDBStreamBatchInfo"] | {"batchSize": 1, "shardId": "shard-1", "streamArn": STREAM}
        == (said["DDBStreamBatchInfo"])
    )
    assert said["DDBStreamBatchInfo"]["startSequenceNumber"] == batch[37]["dynamodb"]["SequenceNumber"]


@pytest.mark.parametrize("lowest_first", [True, False])
def test_a_partial_failure_goes_on_at_the_lowest_that_failed(events: QueueAccess, *, lowest_first: bool) -> None:
    seen: list[list[int]] = []
    batch = records(10)
    named = [batch[number]["dynamodb"]["SequenceNumber"] for number in ((5, 7) if lowest_first else (7, 5))]

    def handler(event: Record, _: object) -> Any:
        seen.append(numbers(event))
        return failed(*(named if len(seen) == 1 else ()))

    deliver(RELAY, handler, batch, shard="", attempts=3)
    assert seen == [list(range(10)), list(range(5, 10))]
    assert events.dead("outbox-relay") == []


def test_a_name_of_no_record_brings_the_whole_batch_again(events: QueueAccess) -> None:
    whole = Mapping("f", "h", "DynamoDB", "s", {"Timeout": 60})
    seen: list[int] = []

    def handler(event: Record, _: object) -> Any:
        seen.append(len(event["Records"]))
        return failed("12") if len(seen) < 3 else failed()

    deliver(whole, handler, records(4), shard="", attempts=5)
    assert seen == [4, 4, 4]


def test_what_never_works_ends_with_its_place_after_the_attempts_and_redriving_sends_it_from_the_outbox(
    events: QueueAccess,
) -> None:
    called = a_call()
    called = type(called)(called.caller, moment.now(), moment.new_id)
    event = ChatDeleted(
        tenant_id=called.caller.tenant_id, timestamp=called.now, requester_type="user", chat_id="c", actor_user_id="u"
    )
    outbox.item(called, ChatId(str(uuid4())), event).save()
    calls: list[int] = []

    def handler(event: Record, _: object) -> Any:
        calls.append(len(event["Records"]))
        return failed(event["Records"][0]["dynamodb"]["SequenceNumber"])

    deliver(RELAY, handler, records(3), shard="", attempts=4)
    assert calls == [3] * 5
    assert [fate for _, fate in redrive("outbox-relay", events.settings, moment.now() + timedelta(seconds=1))] == [
        "sent"
    ]
    (message,) = events.all_of(events.settings.urls["audit"])
    assert json.loads(message["body"])["tenant_id"] == TenantId(called.caller.tenant_id)


def test_what_is_too_old_is_given_up_without_being_tried(events: QueueAccess) -> None:
    tried: list[int] = []
    old = records(2, age=timedelta(seconds=RELAY.properties["MaximumRecordAgeInSeconds"] + 60))
    batch = [*old, *records(4)[2:]]
    deliver(RELAY, lambda event, _: tried.extend(numbers(event)), batch, shard="", attempts=ATTEMPTS)
    assert tried == [2, 3]
    (given_up,) = events.dead("outbox-relay")
    said = json.loads(given_up["body"])
    assert (said["requestContext"]["condition"], said["DDBStreamBatchInfo"]["batchSize"]) == ("RecordAgeExceeded", 2)


def test_records_of_a_shard_are_delivered_side_by_side_and_those_of_an_item_in_order(events: QueueAccess) -> None:
    at_once = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    met = threading.Event()
    delivered: defaultdict[str, list[int]] = defaultdict(list)

    def handler(event: Record, _: object) -> Any:
        if not met.is_set():
            at_once.wait()
            met.set()
        for number, record in zip(numbers(event), event["Records"], strict=True):
            delivered[record["dynamodb"]["Keys"]["pk"]["S"]].append(number)
        return failed()

    hand_out(RELAY, handler, "shard", records(60, of=lambda number: f"chat {number % 12}"))
    assert len(delivered) == 12
    assert all(mine == list(range(mine[0], 60, 12)) for mine in delivered.values())


class _Shards:
    """A stream whose first shard has split: a parent that is closed and its two children, three records in each."""

    def __init__(self) -> None:
        self._records = {
            shard: [a_change("INSERT", number, {"pk": {"S": f"{shard} {number}"}}) for number in range(3)]
            for shard in ("p", "c1", "c2")
        }

    def describe_stream(self, ExclusiveStartShardId: str | None = None, **_: object) -> Record:
        shards = [
            {"ShardId": "c1", "ParentShardId": "p"},
            {"ShardId": "p", "ParentShardId": "trimmed"},
            {"ShardId": "c2", "ParentShardId": "p"},
        ]
        if ExclusiveStartShardId is None:
            return {"StreamDescription": {"Shards": shards[:2], "LastEvaluatedShardId": "p"}}
        return {"StreamDescription": {"Shards": shards[2:]}}

    def get_shard_iterator(self, ShardId: str, SequenceNumber: str | None = None, **_: object) -> Record:
        known = [one["dynamodb"]["SequenceNumber"] for one in self._records[ShardId]]
        return {"ShardIterator": f"{ShardId}/{0 if SequenceNumber is None else known.index(SequenceNumber) + 1}"}

    def get_records(self, ShardIterator: str, **_: object) -> Record:
        shard, at = ShardIterator.split("/")
        found = self._records[shard][int(at) : int(at) + 1]
        if not found:
            return {"Records": [], "NextShardIterator": None if shard == "p" else ShardIterator}
        return {"Records": found, "NextShardIterator": f"{shard}/{int(at) + 1}"}


def test_a_shard_that_split_is_read_before_its_children_and_they_side_by_side(
    events: QueueAccess, tmp_path: Path
) -> None:
    together = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    stop = threading.Event()
    seen: list[str] = []
    relay = Mapping("f", "h", "DynamoDB", "s", RELAY.properties, tmp_path)

    def handler(event: Record, _: object) -> Any:
        for record in event["Records"]:
            item = record["dynamodb"]["Keys"]["pk"]["S"]
            if item in {"c1 1", "c2 1"}:
                together.wait()
            seen.append(item)
        return failed()

    reading = threading.Thread(target=follow, args=(Stream(_Shards(), STREAM), relay, handler, stop))
    reading.start()
    try:
        until(lambda: len(seen) >= 9)
    finally:
        stop.set()
        reading.join()
    assert seen[:3] == ["p 0", "p 1", "p 2"]
    for child in ("c1", "c2"):
        assert [one for one in seen if one.startswith(child)] == [f"{child} {number}" for number in range(3)]


def test_a_shard_waits_for_its_parent_unless_that_is_gone() -> None:
    shards = [{"ShardId": "a"}, {"ShardId": "b", "ParentShardId": "a"}, {"ShardId": "d", "ParentShardId": "c"}]
    assert ready(shards, set(), set()) == ["a", "d"]
    assert ready(shards, {"a", "d"}, set()) == []
    assert ready(shards, {"a", "d"}, {"a"}) == ["b"]


def test_records_that_were_delivered_before_a_process_was_killed_may_be_delivered_again(
    events: QueueAccess, tmp_path: Path
) -> None:
    relay = Mapping("f", "h", "DynamoDB", "s", RELAY.properties, tmp_path)
    seen: list[str] = []

    class Killed(BaseException):
        """The process is gone."""

    def handler(event: Record, _: object) -> Any:
        seen.extend(one["dynamodb"]["Keys"]["pk"]["S"] for one in event["Records"])
        if seen == ["p 0", "p 1"]:
            raise Killed
        return failed()

    shards = _Shards()
    reading = streams._Reading("p", set(), threading.Event())
    with pytest.raises(Killed):
        streams._serve_shard(relay, handler, Stream(shards, STREAM), reading)
    streams._serve_shard(relay, handler, Stream(shards, STREAM), reading)
    assert seen == ["p 0", "p 1", "p 1", "p 2"]
    assert reading.over == {"p"}


def test_what_changes_nothing_is_no_record_and_what_is_deleted_has_no_image(events: QueueAccess, store: Store) -> None:
    # Engines name shards more briefly than AWS does.
    brief = Config(parameter_validation=False)
    options: dict[str, Any] = {"region_name": store.region, "endpoint_url": store.endpoint}
    table = boto3.resource("dynamodb", **options).Table(store.outbox_table)
    for value in (1, 1, 2):
        table.put_item(Item={"pk": "p", "sk": "s", "value": value, "raw": b"\xf0\x9f"})
    table.delete_item(Key={"pk": "p", "sk": "s"})
    stream = Stream(boto3.client("dynamodbstreams", config=brief, **options), table.latest_stream_arn)
    (shard,) = stream.shards()
    iterator = streams._iterator(stream, shard["ShardId"], None, "TRIM_HORIZON")
    found = stream.client.get_records(ShardIterator=iterator)["Records"]
    handed = [stream_record(record, stream.arn) for record in found]
    assert [record["eventName"] for record in handed] == ["INSERT", "MODIFY", "REMOVE"]
    DynamoDBStreamModel.model_validate({"Records": json.loads(json.dumps(handed))})
    assert handed[0]["dynamodb"]["NewImage"]["value"] == {"N": "1"}
    assert handed[0]["dynamodb"]["NewImage"]["raw"] == {"B": "8J8="}
    assert "NewImage" not in handed[2]["dynamodb"]


def test_a_place_in_a_stream_outlives_the_process_but_not_the_stream(tmp_path: Path) -> None:
    streams._Place(tmp_path, "arn:1", "shard").write("41")
    assert streams._Place(tmp_path, "arn:1", "shard").read() == "41"
    assert streams._Place(tmp_path, "arn:2", "shard").read() is None


def test_only_what_the_filter_lets_through_is_delivered() -> None:
    wanted = pattern(RELAY)
    assert [name for name in ("INSERT", "MODIFY", "REMOVE") if matches({"eventName": name}, wanted)] == ["INSERT"]
    assert matches({"eventName": "REMOVE"}, pattern(Mapping("f", "h", "DynamoDB", "s", {})))
    nested = {"dynamodb": {"NewImage": {"type": {"S": ["outbox"]}}}}
    assert matches({"dynamodb": {"NewImage": {"type": {"S": "outbox"}}}}, nested)
    assert not matches({"dynamodb": {"Keys": {}}}, nested)


@pytest.mark.parametrize("filters", [['{"a": [{"numeric": [">", 1]}]}'], ["{}", "{}"]])
def test_a_filter_that_is_not_understood_is_not_passed_over(filters: list[str]) -> None:
    properties = {"FilterCriteria": {"Filters": [{"Pattern": one} for one in filters]}}
    with pytest.raises(ValueError, match="understands|compares"):
        matches({"a": 2}, pattern(Mapping("f", "h", "DynamoDB", "s", properties)))
