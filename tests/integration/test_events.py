"""From outbox to effect, on real queues: what becomes of what is lost, doubled, poisoned or out of order on the way."""

import base64
import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError

from functions.audit.handler import handler as audit
from functions.chat_cleanup.handler import handler as chat_cleanup
from functions.outbox_relay.handler import handler as outbox_relay
from functions.usage.handler import handler as usage
from minichat import moment
from minichat.domain.identity import AttachmentId, ChatId, RequestId, TenantId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.domain.usage_ledger import LedgerSums
from minichat.events import audit_sink
from minichat.local.event_schemas import EXAMPLES
from minichat.observability import begin
from minichat.services import chats, reconcile_usage
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.redrive import Range, redrive, republish
from minichat.services.send import send
from minichat.settings import Settings, Store, current
from minichat.storage import keys, scan, transact, usage_ledger
from minichat.storage.attachment_items import AttachmentItem
from minichat.storage.items import READ_ATTEMPTS
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, unhurried
from tests.support.events.queue_access import QueueAccess, Record, a_change, invocation, reason
from tests.support.patience import PATIENCE
from tests.support.storage.faults import answered_instead, counted_calls, refused, sqs_hook
from tests.support.storage.invariants import Tables

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
TENANT = a_caller().tenant_id
DAY = NOW.date().isoformat()
LATER = NOW + timedelta(days=1)


@pytest.fixture
def events(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[QueueAccess]:
    """Queues that functions of this process use, with fresh tables and an empty audit trail."""
    with QueueAccess.used_here(store, monkeypatch, MINICHAT_AUDIT__SINK=str(tmp_path)) as access:
        yield access


def in_a_moment() -> datetime:
    """When a redrive begins that wants every letter there is, and none comes back: one of this millisecond would count
    as later."""
    return moment.now() + timedelta(seconds=1)


def some_chat(turns: int = 1, text: str = "hi") -> ChatId:
    """A chat with ended turns, whose events wait in the outbox."""
    chat_id = chats.create(a_call(), chats.NewChat(), RULES).chat_id
    for _ in range(turns):
        running = send(a_call(), SendMessage(chat_id, "x", RequestId(str(uuid4()))), RULES)
        assert isinstance(running, RunningTurn)
        finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text=text, usage=Usage(10, 5)), RULES.settings)
    return chat_id


def stream_records(images: list[Any]) -> list[Record]:
    """Outbox items as the stream tells of them."""
    return [a_change("INSERT", number, image, NOW) for number, image in enumerate(images)]


def outbox() -> list[Any]:
    return list(scan.outbox(NOW - timedelta(days=1), LATER))


def relayed(records: list[Record]) -> list[str]:
    return lost_by(outbox_relay, records)


def lost_by(handler: Callable[[Record, Any], Any], records: list[Record]) -> list[str]:
    """What has to come again, by the names that the handler gives."""
    return [one["itemIdentifier"] for one in handler({"Records": records}, invocation())["batchItemFailures"]]


def ledger_of(tenant: TenantId = TENANT) -> LedgerSums:
    (total,) = (one.used for one in usage_ledger.totals(tenant, DAY, DAY) if one.user_id is None)
    return total


def test_every_event_arrives_with_what_a_consumer_needs_to_know(events: QueueAccess) -> None:
    chat_id = some_chat()
    assert relayed(stream_records(outbox())) == []
    (message,) = events.all_of(events.settings.urls["usage"])
    said = {name: value["stringValue"] for name, value in message["messageAttributes"].items()}
    body = json.loads(message["body"])
    key = "/".join(body[name].replace("-", "") for name in ("tenant_id", "turn_id", "request_id"))
    event_id = said.pop("event_id")
    assert said == {"event_type": "turn_usage", "tenant_id": TENANT, "dedupe_key": key, "schema_version": "1"}
    assert message["attributes"]["MessageGroupId"] == TENANT
    assert body["chat_id"] == chat_id
    assert event_id in {image["sk"]["S"] for image in outbox()}


def test_one_poison_record_among_a_thousand_stops_nobody(events: QueueAccess) -> None:
    some_chat()
    (image,) = (one for one in outbox() if one["queue"]["S"] == "usage")
    images = [{**image, "sk": {"S": str(uuid4())}} for _ in range(1000)]
    poison = images[537] = {**images[537], "queue": {"S": "nowhere"}}
    records = stream_records(images)
    assert [relayed(records[start : start + 100]) for start in range(0, 1000, 100)] == [[]] * 10
    arrived = events.all_of(events.settings.urls["usage"])
    ids = {record["messageAttributes"]["event_id"]["stringValue"] for record in arrived}
    assert (len(arrived), ids) == (999, {one["sk"]["S"] for one in images if one is not poison})
    url = events.settings.dead_letters["outbox-relay"]
    (buried,) = events.receive(url, VisibilityTimeout=0)
    assert reason(buried) == "there is no queue 'nowhere'"
    # After a fix, which here is a queue of that name, a redrive delivers it.
    urls = {**events.settings.urls, "nowhere": events.settings.urls["audit"]}
    mended = events.settings.model_copy(update={"urls": urls})
    assert [fate for _, fate in redrive("outbox-relay", mended, in_a_moment())] == ["sent"]
    (delivered,) = events.all_of(events.settings.urls["audit"])
    assert delivered["messageAttributes"]["event_id"]["stringValue"] == poison["sk"]["S"]
    assert events.receive(url) == []


@pytest.mark.parametrize("missing", ["pk", "sk", "queue", "type", "dedupe", "payload"])
def test_an_item_without_an_attribute_is_poison(events: QueueAccess, missing: str) -> None:
    some_chat()
    image = dict(outbox()[0])
    del image[missing]
    assert relayed(stream_records([image, outbox()[1]])) == []
    (buried,) = events.dead("outbox-relay")
    assert missing in reason(buried)
    assert json.loads(buried["body"])["item"] == image


def test_what_redriving_does_not_mend_stays_where_it_was(events: QueueAccess) -> None:
    relayed(stream_records([{"pk": {"S": "T#t#C#c"}}]))
    assert [fate for _, fate in redrive("outbox-relay", events.settings, in_a_moment(), dry_run=True)] == ["kept"]
    # It comes back while it is looked for: only what was there before counts.
    assert [fate for _, fate in redrive("outbox-relay", events.settings, moment.now())] == ["sent"]
    assert len(events.dead("outbox-relay")) == 1


def test_secrets_that_were_kept_out_of_the_trail_are_counted_by_kinds_that_exist(events: QueueAccess) -> None:
    del events
    said = json.loads(EXAMPLES["audit"][0].payload())
    said["prompt"] = "Use AKIAIOSFODNN7EXAMPLE, and AKIAIOSFODNN7EXAMPLF. [redacted:nonsense]"
    event = begin()
    assert audit_sink.write(json.dumps(said), str(uuid4()), moment.now())
    counted = [one.dimensions for one in event.measurements if one.name == "redactions_total"]
    assert counted.count((("kind", "aws-key-id"),)) == 2
    assert (("kind", "nonsense"),) not in counted


def test_an_outage_of_the_queues_delays_and_keeps_the_order_of_each_chat(events: QueueAccess) -> None:
    for _ in range(3):
        some_chat(turns=12)
    records = stream_records([image for image in outbox() if image["queue"]["S"] == "audit"])
    attempts, left = 0, records
    with sqs_hook("SendMessageBatch", [None, refused("InternalError", status=500), None, refused("RequestThrottled")]):
        while failed := relayed(left):
            attempts += 1
            # Lambda goes on from the lowest one.
            left = left[[one["dynamodb"]["SequenceNumber"] for one in left].index(failed[0]) :]
    assert attempts >= 1
    seen: dict[str, list[str]] = {}
    for message in events.all_of(events.settings.urls["audit"]):
        chat = seen.setdefault(json.loads(message["body"])["chat_id"], [])
        event_id = message["messageAttributes"]["event_id"]["stringValue"]
        if event_id not in chat:  # the first delivery counts
            chat.append(event_id)
    assert sorted(map(len, seen.values())) == [12, 12, 12]
    assert all(chat == sorted(chat) for chat in seen.values())


def test_a_message_that_sqs_refuses_alone_is_found_and_buried(events: QueueAccess) -> None:
    some_chat(turns=3)
    images = [image for image in outbox() if image["queue"]["S"] == "usage"]
    # A character that SQS does not take, which no payload of ours has.
    images[1] = {**images[1], "payload": {"S": images[1]["payload"]["S"] + "\uffff"}}
    answers = [refused("InvalidMessageContents"), None, refused("InvalidMessageContents"), None]
    with sqs_hook("SendMessageBatch", answers):
        assert relayed(stream_records(images)) == []
    assert len(events.all_of(events.settings.urls["usage"])) == 2
    (buried,) = events.dead("outbox-relay")
    assert reason(buried) == "usage: InvalidMessageContents"


def test_the_largest_item_that_dynamodb_takes_fits_into_a_message(events: QueueAccess) -> None:
    some_chat()
    (image,) = (one for one in outbox() if one["queue"]["S"] == "audit")
    large = [{**image, "sk": {"S": str(uuid4())}, "payload": {"S": "é" * 190_000}} for _ in range(12)]
    assert relayed(stream_records(large)) == []
    assert len(events.all_of(events.settings.urls["audit"])) == 12


BAD = [
    ("{nope", "not JSON"),
    ('"text"', "not as its schema says"),
    ("[]", "not as its schema says"),
    ("{}", "event_type"),
    ('{"event_type": "tea_time"}', "tea_time"),
    (r'{"event_type": "tea\u0001time"}', "tea?time"),  # no message can carry that character
    ('{"event_type": "turn_completed", "tenant_id": "t"}', "timestamp: Field required"),
    ('{"event_type":' * 5000 + "1" + "}" * 5000, "maximum recursion depth"),
    (  # it can be read, and nobody can redact it
        json.dumps(json.loads(EXAMPLES["audit"][-1].payload()) | {"deep": json.loads("[" * 700 + "]" * 700)}),
        "maximum recursion depth",
    ),
]


@pytest.mark.parametrize(("body", "why"), BAD)
def test_what_is_no_event_goes_to_the_dead_letters_at_once_and_says_why(
    events: QueueAccess, body: str, why: str
) -> None:
    some_chat()
    events.send("audit", body, event_id=str(uuid4()), trace_id="0" * 32)
    relayed(stream_records([image for image in outbox() if image["queue"]["S"] == "audit"]))
    assert events.handled("audit", audit) == []
    assert len(list(audit_sink.records(Path(current().audit.sink)))) == 1
    (buried,) = events.dead("audit")
    assert buried["body"] == body
    assert why in reason(buried)
    assert buried["messageAttributes"]["trace_id"]["stringValue"] == "0" * 32


def test_a_failure_that_passes_is_tried_again_after_longer_and_longer_pauses(events: QueueAccess) -> None:
    some_chat()
    relayed(stream_records([image for image in outbox() if image["queue"]["S"] == "usage"]))
    (record,) = events.receive(events.settings.urls["usage"])
    pauses: list[int] = []
    with sqs_hook("ChangeMessageVisibility", seen=lambda said: pauses.append(int(said["VisibilityTimeout"]))):
        for attempt in (1, 2, 3, 4):
            record["attributes"]["ApproximateReceiveCount"] = str(attempt)
            with answered_instead("TransactWriteItems", [refused("ValidationException")] * 2):
                answer = usage({"Records": [record]}, None)
            assert answer == {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    assert all(2 ** (attempt - 1) <= pauses[attempt - 1] <= 2**attempt for attempt in (1, 2, 3, 4))
    assert events.dead("usage") == []
    assert usage({"Records": [record]}, None) == {"batchItemFailures": []}
    assert ledger_of().turns == 1


def test_a_dead_letter_queue_that_refuses_costs_a_pause_and_no_message(
    events: QueueAccess, capsys: pytest.CaptureFixture[str]
) -> None:
    events.send("audit", "{nope", event_id=str(uuid4()))
    pauses: list[int] = []
    hidden = sqs_hook("ChangeMessageVisibility", seen=lambda said: pauses.append(int(said["VisibilityTimeout"])))
    with hidden, sqs_hook("SendMessageBatch", [refused("InternalError", status=500)]):
        (failed,) = events.handled("audit", audit)
    (pause,) = pauses
    assert 1 <= pause <= 2
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["queue"] for one in told if "dead_letter_refused_total" in one] == ["audit"]
    assert [one["result"] for one in told if "consumer_result_total" in one] == ["again"]
    assert events.dead("audit") == []
    url = events.settings.urls["audit"]
    (record,) = events.receive(url, WaitTimeSeconds=20)
    assert record["messageId"] == failed
    assert audit({"Records": [record]}, None) == {"batchItemFailures": []}
    (buried,) = events.dead("audit")
    assert reason(buried).startswith("not JSON")


def test_a_relay_whose_dead_letter_queue_refuses_keeps_the_record(
    events: QueueAccess, capsys: pytest.CaptureFixture[str]
) -> None:
    some_chat()
    records = stream_records([{**outbox()[0], "queue": {"S": "nowhere"}}])
    with sqs_hook("SendMessageBatch", [refused("InternalError", status=500)]):
        assert relayed(records) == [records[0]["dynamodb"]["SequenceNumber"]]
    assert "dead_letter_refused_total" in capsys.readouterr().out
    assert relayed(records) == []
    assert len(events.dead("outbox-relay")) == 1


def test_a_message_that_cannot_be_redriven_is_seen_by_the_next_who_looks(events: QueueAccess) -> None:
    for _ in range(4):
        events.send("audit", "{nope", event_id=str(uuid4()))
    handled = 0
    while handled < 4:
        batch = events.receive(events.settings.urls["audit"])
        assert audit({"Records": batch}, None) == {"batchItemFailures": []}
        handled += len(batch)
    with sqs_hook("SendMessageBatch", [refused("InternalError", status=500)]):
        fates = [fate for _, fate in redrive("audit", events.settings, in_a_moment())]
    assert sorted(fates) == ["failed", "sent", "sent", "sent"]
    assert [fate for _, fate in redrive("audit", events.settings, in_a_moment())] == ["sent"]
    records = events.all_of(events.settings.urls["audit"])
    assert all("redriven" in record["messageAttributes"] for record in records)


def test_what_waits_for_a_failure_in_its_group_is_hidden_no_longer_than_that(events: QueueAccess) -> None:
    """What was received with the failure would keep it from coming again for as long as its queue hides a message."""
    chat_id = some_chat()
    chats.delete(a_call(), chat_id)
    (image,) = (one for one in outbox() if one["queue"]["S"] == "chat-cleanup")
    for _ in range(3):
        events.send("chat-cleanup", image["payload"]["S"], group=chat_id)
    records = events.receive(events.settings.urls["chat-cleanup"])
    assert len(records) == 3
    pauses: list[int] = []
    hidden = sqs_hook("ChangeMessageVisibility", seen=lambda said: pauses.append(int(said["VisibilityTimeout"])))
    with hidden, answered_instead("BatchGetItem", [refused("ValidationException")] * READ_ATTEMPTS):
        assert len(lost_by(chat_cleanup, records)) == 3
    assert len(pauses) == 3
    assert all(1 <= pause <= 2 for pause in pauses)


def test_the_same_event_at_eight_consumers_at_once_counts_once(events: QueueAccess) -> None:
    some_chat()
    relayed(stream_records([image for image in outbox() if image["queue"]["S"] != "chat-cleanup"]))
    (used,) = events.receive(events.settings.urls["usage"])
    (told,) = events.receive(events.settings.urls["audit"])
    together = threading.Barrier(16)

    def consumed(number: int) -> Any:
        together.wait()
        return (usage if number % 2 else audit)({"Records": [used if number % 2 else told]}, None)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(consumed, range(16))) == [{"batchItemFailures": []}] * 16
    (entry,) = usage_ledger.entries(TENANT, DAY)
    assert ledger_of() == entry.used
    assert entry.used.turns == 1
    assert len(list(audit_sink.records(Path(current().audit.sink)))) == 1


def test_everything_three_times_and_in_any_order_comes_to_the_same(events: QueueAccess) -> None:
    for _ in range(4):
        some_chat(turns=10)
    relayed(stream_records(outbox()))
    by_queue = {"usage": usage, "audit": audit}
    messages = [
        (by_queue[queue], record) for queue in by_queue for record in events.all_of(events.settings.urls[queue]) * 3
    ]
    random.Random(7).shuffle(messages)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: one[0]({"Records": [one[1]]}, None), messages))
    assert answers == [{"batchItemFailures": []}] * 240
    proof = reconcile_usage.prove(LATER, TENANT, audit_sink.records(Path(current().audit.sink)))
    assert (proof.turns, proof.entries, proof.days, proof.mismatches) == (40, 40, 1, [])


def test_a_group_that_failed_waits_and_the_others_go_on(events: QueueAccess) -> None:
    first, second = some_chat(), some_chat()
    for chat_id in (first, second):
        chats.delete(a_call(), chat_id)
    cleanups = [image for image in outbox() if image["queue"]["S"] == "chat-cleanup"]
    relayed(stream_records(cleanups))
    events.send("chat-cleanup", cleanups[0]["payload"]["S"], group=cleanups[0]["pk"]["S"])
    records = events.receive(events.settings.urls["chat-cleanup"])
    records += events.receive(events.settings.urls["chat-cleanup"])
    groups = Counter(record["attributes"]["MessageGroupId"] for record in records)
    with answered_instead("BatchGetItem", [refused("ValidationException")] * READ_ATTEMPTS):
        failed = lost_by(chat_cleanup, records)
    lost = {record["attributes"]["MessageGroupId"] for record in records if record["messageId"] in failed}
    assert len(lost) == 1
    assert len(failed) == groups[lost.pop()]


def settled(events: QueueAccess, turns: int) -> list[Record]:
    """The messages of so many settled turns."""
    some_chat(turns)
    relayed(stream_records([image for image in outbox() if image["queue"]["S"] == "usage"]))
    return events.all_of(events.settings.urls["usage"])


def booked() -> tuple[int, LedgerSums]:
    """How many entries there are, and the tenant's total."""
    total = next(one.used for one in usage_ledger.totals(TENANT, DAY, DAY) if one.user_id is None)
    return len(list(usage_ledger.entries(TENANT, DAY))), total


def test_settled_turns_that_come_together_are_one_transaction_and_count_once(events: QueueAccess) -> None:
    records = settled(events, 40)
    with counted_calls() as calls:
        assert usage({"Records": records[:30]}, None) == {"batchItemFailures": []}
    assert calls == ["TransactWriteItems"]
    count, total = booked()
    assert (count, total.turns, total.input_tokens) == (30, 30, 300)
    # Ten that were entered, ten new ones, and two of those a second time.
    with counted_calls() as calls:
        assert usage({"Records": [*records[20:], *records[30:32]]}, None) == {"batchItemFailures": []}
    assert calls == ["TransactWriteItems"] * 2, "refused by those that were there, then without them"
    count, total = booked()
    assert (count, total.turns, total.output_tokens) == (40, 40, 200)
    assert usage({"Records": records[:30]}, None) == {"batchItemFailures": []}
    assert booked() == (count, total)


def test_one_that_can_never_be_entered_keeps_no_other_from_it(events: QueueAccess, refused_by_aws: list[str]) -> None:
    records = settled(events, 4)
    too_large = json.loads(records[2]["body"]) | {"effective_model": "m" * 500_000}
    records[2]["body"] = json.dumps(too_large)
    answer = usage({"Records": records}, None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": records[2]["messageId"]}]}
    assert booked()[0] == 3
    assert len(refused_by_aws) == 2, "once among the others, and once alone"
    refused_by_aws.clear()


def test_a_store_that_does_not_answer_is_waited_for_once_for_all(
    events: QueueAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = settled(events, 5)
    monkeypatch.setattr(transact, "PATIENCE_SECONDS", 0.0)
    with answered_instead("TransactWriteItems", [refused("ThrottlingException")] * transact.LEAST_ATTEMPTS):
        answer = usage({"Records": records}, None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in records]}
    assert usage({"Records": records}, None) == {"batchItemFailures": []}
    assert booked()[0] == 5


def test_consumers_that_enter_the_same_turns_at_once_enter_each_once(events: QueueAccess) -> None:
    records = settled(events, 30)
    start = threading.Barrier(6)

    def one(number: int) -> Any:
        start.wait(PATIENCE)
        return usage({"Records": records[number * 3 : number * 3 + 15]}, None)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(one, range(6)))
    for answer in answers:
        again = {failed["itemIdentifier"] for failed in answer["batchItemFailures"]}
        if left := [record for record in records if record["messageId"] in again]:
            assert usage({"Records": left}, None) == {"batchItemFailures": []}
    count, total = booked()
    assert (count, total.turns, total.input_tokens) == (30, 30, 300)


def test_republishing_heals_a_ledger_that_lost_a_range(events: QueueAccess) -> None:
    some_chat(turns=15)
    relayed(stream_records([image for image in outbox() if image["queue"]["S"] == "audit"]))
    while events.receive(events.settings.urls["audit"], VisibilityTimeout=60):
        pass
    assert list(usage_ledger.totals(TENANT, DAY, DAY)) == []
    wanted = Range(NOW - timedelta(days=1), LATER, TENANT, "usage")
    (counted,) = republish(wanted, events.settings, again="#1", dry_run=True)
    assert counted == {"usage": 15}
    assert events.receive(events.settings.urls["usage"]) == []
    assert sum((batch for batch in republish(wanted, events.settings, again="#2")), Counter()) == {"usage": 15}
    assert list(republish(Range(LATER, LATER), events.settings, again="#3")) == []
    while events.handled("usage", usage) or events.receive(events.settings.urls["usage"], VisibilityTimeout=0):
        pass
    assert ledger_of().turns == 15
    assert reconcile_usage.prove(LATER, TENANT).mismatches == []


def test_a_ledger_from_which_entries_were_deleted_is_healed_by_republishing_and_repair(
    events: QueueAccess, store: Store
) -> None:
    some_chat(turns=6)
    relayed(stream_records(outbox()))
    while events.handled("usage", usage) or events.receive(events.settings.urls["usage"], VisibilityTimeout=0):
        pass
    before = list(usage_ledger.totals(TENANT, DAY, DAY))
    table = boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(
        store.conversation_table
    )
    lost = [item for item in Tables.of(store).conversations if "#L#" in item["pk"]][:3]
    for item in lost:
        table.delete_item(Key={"pk": item["pk"], "sk": item["sk"]})
    named = reconcile_usage.prove(LATER, TENANT).mismatches
    assert sum(one.where.startswith("ledger entry of turn") for one in named) == 3
    assert sum(one.where.startswith("total of") for one in named) == 2
    for _ in republish(Range(NOW - timedelta(days=1), LATER, TENANT, "usage"), events.settings, again="#1"):
        pass
    while events.handled("usage", usage) or events.receive(events.settings.urls["usage"], VisibilityTimeout=0):
        pass
    # What was booked again was also added again.
    doubled = reconcile_usage.prove(LATER, TENANT).mismatches
    assert [one.where.split(" of ")[0] for one in doubled] == ["total", "total"]
    assert reconcile_usage.repair(doubled, retention_days=400) == 2
    assert reconcile_usage.repair(doubled, retention_days=400) == 0  # they are not as they were seen any more
    assert reconcile_usage.prove(LATER, TENANT).mismatches == []
    assert list(usage_ledger.totals(TENANT, DAY, DAY)) == before


def test_a_record_in_a_bucket_is_written_once(events: QueueAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = f"audit-{uuid4().hex[:12]}"
    s3 = boto3.client("s3", endpoint_url=events.settings.endpoint, region_name="us-east-1")
    s3.create_bucket(Bucket=bucket)
    monkeypatch.setenv("MINICHAT_AUDIT__SINK", f"s3://{bucket}/trail")
    current.cache_clear()
    audit_sink._s3.cache_clear()
    some_chat(turns=2)
    relayed(stream_records([image for image in outbox() if image["queue"]["S"] == "audit"]))
    records = events.receive(events.settings.urls["audit"])
    for _ in range(2):
        assert audit({"Records": records}, None) == {"batchItemFailures": []}
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    ids = sorted(record["messageAttributes"]["event_id"]["stringValue"] for record in records)
    assert keys == [f"trail/tenant={TENANT}/day={DAY}/{event_id}.jsonl" for event_id in ids]
    (line,) = s3.get_object(Bucket=bucket, Key=keys[0])["Body"].read().decode().splitlines()
    assert json.loads(line)["event_id"] == ids[0]
    # It is the bucket that refuses a second writing.
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key=keys[0], Body=b"another", IfNoneMatch="*")


SECRETS = {
    "bearer": "Bearer " + "mF_9.B5f-4.1JqM" * 3,
    "jwt": ".".join(
        base64.urlsafe_b64encode(part).decode().strip("=") for part in (b'{"alg":"RS256"}', b'{"sub":"42"}', b"s" * 32)
    ),
    "openai": "sk-" + "aB3dEf7hIjK1mNoP9qRs" * 2,
    "aws": "AKI" + "AIOSFODNN7EXAMPLE",
    "azure": base64.b64encode(hashlib.sha512(b"storage").digest()).decode(),
    "api_key": "s3cr3t-V4lue",
    "password": "sword-fish-77",
    "pem": "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
    "base64": base64.b64encode(bytes(range(256))).decode(),
}
PROMPT = "\n".join(
    [
        f"Authorization: {SECRETS['bearer']}",
        SECRETS["jwt"],
        f"key {SECRETS['openai']} and {SECRETS['aws']}",
        f"AccountKey={SECRETS['azure']}",
        f'{{"client_secret": "{SECRETS["api_key"]}"}}',
        f"password={SECRETS['password']}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRETS['pem']}\n-----END PRIVATE KEY-----",
        SECRETS["base64"],
        "and some honest words",
    ]
)


def test_no_secret_of_a_prompt_gets_into_an_event_a_record_or_a_log(
    events: QueueAccess, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings.model_validate({"audit": {"content": True}})
    rules = Rules(settings, RULES.policy)
    chat_id = chats.create(a_call(), chats.NewChat(), rules).chat_id
    running = send(a_call(), SendMessage(chat_id, PROMPT, RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    ending = Ending(TurnState.COMPLETED, text=f"You said: {PROMPT}", usage=Usage(10, 5))
    finalize(a_call(), running.turn, ending, settings)
    relayed(stream_records(outbox()))
    messages = [events.receive(events.settings.urls[queue])[0] for queue in ("audit", "usage")]
    for message, handler in zip(messages, (audit, usage), strict=True):
        handler({"Records": [message]}, None)
    records = [file.read_text() for file in Path(current().audit.sink).rglob("*.jsonl")]
    left = [json.dumps(outbox()), *(message["body"] for message in messages), *records, *capfd.readouterr()]
    assert {name for name, secret in SECRETS.items() if any(secret in text for text in left)} == set()
    (record,) = map(json.loads, records)
    assert record["prompt"].endswith("and some honest words")
    assert record["response"].startswith("You said: Authorization: Bearer [redacted:bearer]")


def test_without_the_setting_no_content_leaves(events: QueueAccess) -> None:
    some_chat(text="the answer")
    assert not any("the answer" in image["payload"]["S"] or "prompt" in image["payload"]["S"] for image in outbox())


def test_nothing_of_a_deleted_chat_stays(events: QueueAccess, store: Store) -> None:
    chat_id, other = some_chat(turns=3, text="long " * 100_000), some_chat()
    # Its key sorts before the head's.
    AttachmentItem(*keys.attachment(TENANT, chat_id, AttachmentId("a")), kind="image", storage_backend="openai").save()
    chats.delete(a_call(), chat_id)
    relayed(stream_records([image for image in outbox() if image["queue"]["S"] == "chat-cleanup"]))
    assert events.handled("chat-cleanup", chat_cleanup) == []
    items = [item for item in Tables.of(store).conversations if "#C#" in item["pk"]]
    grace = timedelta(days=current().retention.deleted_chats_days)
    (head,) = (item for item in items if item["sk"] == "CHAT" and item["pk"].endswith(chat_id))
    ends = {int(item["expires_at"]) for item in items if item["pk"].endswith(chat_id)}
    assert ends == {int(head["deleted_at"]) // 1_000_000 + int(grace.total_seconds())}
    assert not any("expires_at" in item for item in items if item["pk"].endswith(other))


def test_cleanup_waits_for_the_turn_that_still_runs(events: QueueAccess, store: Store) -> None:
    chat_id = some_chat()
    running = send(a_call(), SendMessage(chat_id, "x", RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    chats.delete(a_call(), chat_id)
    (image,) = (one for one in outbox() if one["queue"]["S"] == "chat-cleanup")
    relayed(stream_records([image]))
    (record,) = events.receive(events.settings.urls["chat-cleanup"])
    # To this chat's clock nothing has been silent for long; the function's own is far behind or ahead of it.
    finalized = Ending(TurnState.CANCELLED, text="part")
    first = lost_by(chat_cleanup, [record])
    finalize(a_call(), running.turn, finalized, RULES.settings)
    assert lost_by(chat_cleanup, [record]) == []
    items = [item for item in Tables.of(store).conversations if item["pk"].endswith(chat_id)]
    assert all("expires_at" in item for item in items)
    assert first in ([], [record["messageId"]])


def test_a_living_chat_is_not_cleaned_whatever_a_message_says(events: QueueAccess, store: Store) -> None:
    chat_id = some_chat()
    body = {
        "event_type": "chat_cleanup",
        "tenant_id": TENANT,
        "chat_id": chat_id,
        "user_id": a_caller().user_id,
        "system_request_id": str(uuid4()),
        "chat_deleted_at": NOW.isoformat(),
    }
    events.send("chat-cleanup", json.dumps(body), group="g")
    events.handled("chat-cleanup", chat_cleanup)
    assert reason(events.dead("chat-cleanup")[0]) == "the chat is not deleted"
    assert not any("expires_at" in item for item in Tables.of(store).conversations if item["pk"].endswith(chat_id))
