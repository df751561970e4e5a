"""The local stack's event sources do what Lambda's would: filter, bisect, go on at the lowest failure, give up."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import pytest

from minichat import moment
from minichat.domain.identity import ChatId, TenantId
from minichat.events import queues
from minichat.events.payloads import ChatDeleted, Queue
from minichat.local import sources
from minichat.local.sources import Mapping, deliver, mapped
from minichat.local.tables import load_template, project_root
from minichat.services.redrive import redrive
from minichat.settings import Store, current
from minichat.storage import outbox
from minichat.storage.items import connect
from tests.builders import a_call
from tests.queue_access import QueueAccess, Record

(RELAY,) = (one for one in mapped(load_template(project_root() / "template.yaml")) if one.kind == "DynamoDB")


@pytest.fixture
def events(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueAccess]:
    """Queues that this process uses."""
    access = QueueAccess.made_at(str(store.endpoint), store.region)
    for name, value in access.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("endpoint", "conversation_table", "outbox_table"):
        monkeypatch.setenv(f"MINICHAT_STORE__{name.upper()}", str(getattr(store, name)))
    current.cache_clear()
    queues.connect(current())
    connect(store)
    monkeypatch.setattr("minichat.local.sources.time.sleep", lambda _: None)
    yield access
    current.cache_clear()


def records(count: int) -> list[Record]:
    """Records of a stream, as many."""
    at = moment.now().timestamp()
    return [
        {"eventName": "INSERT", "dynamodb": {"SequenceNumber": str(number), "ApproximateCreationDateTime": at}}
        for number in range(count)
    ]


def numbers(event: Record) -> list[str]:
    return [one["dynamodb"]["SequenceNumber"] for one in event["Records"]]


def test_every_mapping_of_the_template_is_served() -> None:
    served = {(one.function, one.kind) for one in mapped(load_template(project_root() / "template.yaml"))}
    assert {("OutboxRelayFunction", "DynamoDB"), ("UsageFunction", "SQS"), ("ChatCleanupFunction", "SQS")} <= served
    assert RELAY.properties["MaximumRetryAttempts"] > 0


def test_what_has_an_order_is_handled_one_after_the_other_and_the_rest_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls = {
        name: f"http://q/minichat-{name.title().replace('-', '')}Queue{'.fifo' if name in _ORDERED else ''}"
        for name in get_args(Queue)
    }
    monkeypatch.setenv("MINICHAT_QUEUES__URLS", json.dumps(urls))
    current.cache_clear()
    known = mapped(load_template(project_root() / "template.yaml"))
    at_once = {one.function: sources.side_by_side(one) for one in known}
    current.cache_clear()
    assert at_once == {
        "OutboxRelayFunction": 1,
        "ChatCleanupFunction": 1,
        "ThreadSummaryFunction": 1,
        "AttachmentCleanupFunction": 5,
        "AttachmentIngestFunction": 5,
        "AuditFunction": 5,
        "UsageFunction": 5,
    }


_ORDERED = {"chat-cleanup", "thread-summary"}


def test_a_record_that_breaks_the_function_is_found_by_halves_and_given_up_alone(events: QueueAccess) -> None:
    delivered: list[str] = []

    def handler(event: Record, _: object) -> Any:
        if "37" in numbers(event):
            raise RuntimeError("cannot take 37")
        delivered.extend(numbers(event))
        return {"batchItemFailures": []}

    deliver(RELAY, handler, records(100), attempts=RELAY.properties["MaximumRetryAttempts"])
    assert delivered == [str(number) for number in range(100) if number != 37]
    (given_up,) = events.dead("outbox-relay")
    said = json.loads(given_up["body"])
    assert said["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert (said["DDBStreamBatchInfo"]["startSequenceNumber"], said["DDBStreamBatchInfo"]["batchSize"]) == ("37", 1)


def test_a_partial_failure_goes_on_at_the_lowest_that_failed(events: QueueAccess) -> None:
    seen: list[list[str]] = []

    def handler(event: Record, _: object) -> Any:
        seen.append(numbers(event))
        failed = ["7", "5"] if len(seen) == 1 else []
        return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}

    deliver(RELAY, handler, records(10), attempts=3)
    assert [(batch[0], batch[-1]) for batch in seen] == [("0", "9"), ("5", "9")]
    assert events.dead("outbox-relay") == []


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
        return {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["dynamodb"]["SequenceNumber"]}]}

    deliver(RELAY, handler, records(3), attempts=4)
    assert calls == [3] * 5
    assert [fate for _, fate in redrive("outbox-relay", events.settings, moment.now() + timedelta(seconds=1))] == [
        "sent"
    ]
    (message,) = events.all_of(events.settings.urls["audit"])
    assert json.loads(message["body"])["tenant_id"] == TenantId(called.caller.tenant_id)


def test_a_place_in_a_stream_outlives_the_process_but_not_the_stream(tmp_path: Path) -> None:
    sources._Place(tmp_path, "arn:1", "shard").write("41")
    assert sources._Place(tmp_path, "arn:1", "shard").read() == "41"
    assert sources._Place(tmp_path, "arn:2", "shard").read() is None


def test_only_what_the_filter_lets_through_is_delivered() -> None:
    pattern = sources._pattern(RELAY)
    assert [name for name in ("INSERT", "MODIFY", "REMOVE") if sources._matches({"eventName": name}, pattern)] == [
        "INSERT"
    ]
    assert sources._matches({"eventName": "REMOVE"}, sources._pattern(Mapping("f", "h", "DynamoDB", "s", {})))
