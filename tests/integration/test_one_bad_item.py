"""Whoever goes over many items stops at none: what is wrong with one is told, and the others have their turn."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from functions.outbox_relay.handler import handler as outbox_relay
from minichat import moment
from minichat.cli import turns
from minichat.cli.main import main
from minichat.events import audit_sink, dead_letters, sqs
from minichat.http.admin.routes import running
from minichat.services import reconcile_usage
from minichat.services.redrive import Range, redrive, republish
from minichat.settings import Store, current
from minichat.storage import keys, scan
from tests.integration.test_events import lost_by, some_chat, stream_records
from tests.integration.test_orphans import a_running_turn
from tests.integration.test_reconcile import all_booked, later, spoilt
from tests.support.domain.builders import NOW, a_caller
from tests.support.events.queue_access import QueueAccess, reason
from tests.support.storage.faults import refused, sqs_hook
from tests.support.storage.invariants import Tables

LATER = NOW + timedelta(days=1)
TENANT = a_caller().tenant_id


@pytest.fixture
def events(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[QueueAccess]:
    """A deployment of its own: what this process's settings say, functions and commands alike."""
    with QueueAccess.used_here(
        store,
        monkeypatch,
        MINICHAT_STORE__ENDPOINT=str(store.endpoint),
        MINICHAT_STORE__CONVERSATION_TABLE=store.conversation_table,
        MINICHAT_STORE__OUTBOX_TABLE=store.outbox_table,
        MINICHAT_AUDIT__SINK=str(tmp_path),
    ) as access:
        yield access


def usage_images() -> list[Any]:
    """What waits in the outbox for the ledger."""
    return [one for one in scan.outbox(NOW - timedelta(days=1), LATER) if one.get("queue", {}).get("S") == "usage"]


def outbox_table(store: Store) -> Any:
    return boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(store.outbox_table)


@pytest.mark.parametrize("bad", [{"delay": {"N": "soon"}}, {"payload": {"N": "7"}}, {"pk": {"S": ""}, "queue": {}}])
def test_a_relay_buries_what_it_cannot_read_and_sends_the_others(events: QueueAccess, bad: dict[str, Any]) -> None:
    some_chat(turns=3)
    images = usage_images()
    images[1] = {**images[1], **bad}
    assert lost_by(outbox_relay, stream_records(images)) == []
    assert len(events.all_of(events.settings.urls["usage"])) == 2
    assert "the item" in reason(events.dead("outbox-relay")[0])


def test_a_record_without_an_item_is_buried_too(events: QueueAccess) -> None:
    some_chat(turns=2)
    records = stream_records(usage_images())
    del records[0]["dynamodb"]["NewImage"]
    assert lost_by(outbox_relay, records) == []
    assert len(events.all_of(events.settings.urls["usage"])) == 1
    assert len(events.dead("outbox-relay")) == 1


def test_an_event_of_a_range_that_is_not_taken_now_keeps_none_of_the_others(
    events: QueueAccess, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command goes on with the client that this test hooks into.
    monkeypatch.setattr(sqs, "connect", lambda _: None)
    some_chat(turns=30)
    strange = usage_images()[3]
    outbox_table(store).update_item(
        Key={"pk": strange["pk"]["S"], "sk": strange["sk"]["S"]},
        UpdateExpression="REMOVE #queue",
        ExpressionAttributeNames={"#queue": "queue"},
    )
    everything = Range(NOW - timedelta(days=1), LATER, TENANT)
    (counted,) = republish(everything, events.settings, again="#1", dry_run=True)
    assert counted == {"usage": 29, "audit": 30, "refused": 1}
    with sqs_hook("SendMessageBatch", [refused("RequestThrottled")]):
        sent = sum(republish(everything, events.settings, again="#2"), Counter())
    arrived = [len(events.all_of(events.settings.urls[queue])) for queue in ("usage", "audit")]
    # What stood behind the one that was not taken waits with it; the other queue's do not.
    assert sorted(arrived)[1] >= 29
    assert sent["refused"] == 1
    assert sent["unsent"] == 59 - sum(arrived) > 0
    with sqs_hook("SendMessageBatch", [refused("RequestThrottled")]):
        assert (
            main(["outbox", "republish", "--since", f"{NOW - timedelta(days=1):%Y-%m-%d}", "--until", str(LATER)]) == 1
        )
    assert "were not taken now" in capsys.readouterr().err


def test_a_dead_letter_that_cannot_be_sent_keeps_none_of_the_others(
    events: QueueAccess, capsys: pytest.CaptureFixture[str]
) -> None:
    some_chat(turns=2)
    url = events.settings.dead_letters["outbox-relay"]
    bodies = ["no JSON", "{}", "[]", '{"DDBStreamBatchInfo": {"approximateArrivalOfFirstRecord": "yesterday"}}']
    bodies += [json.dumps({"item": image}) for image in usage_images()]
    for body in bodies:
        events.client.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=uuid4().hex)
    fates = Counter(fate for _, fate in redrive("outbox-relay", events.settings, moment.now() + timedelta(minutes=1)))
    assert fates == {"sent": 2, "failed": 4}
    assert len(events.all_of(events.settings.urls["usage"])) == 2
    # They stay, and can be seen at once.
    assert main(["dlq", "redrive", "outbox-relay"]) == 1
    assert "4 could not be sent and stay" in capsys.readouterr().err
    assert sorted(letter.body for letter in dead_letters.waiting(url)) == sorted(bodies[:4])


def test_a_queue_that_takes_nothing_now_costs_a_redrive_its_own_letters_alone(events: QueueAccess) -> None:
    for name in ("first", "second"):
        events.client.send_message(
            QueueUrl=events.settings.dead_letters["audit"], MessageBody=name, MessageGroupId=uuid4().hex
        )
    with sqs_hook("SendMessageBatch", [refused("RequestThrottled")]):
        fates = Counter(fate for _, fate in redrive("audit", events.settings, moment.now() + timedelta(minutes=1)))
    assert fates == {"failed": 1, "sent": 1}
    assert len(events.all_of(events.settings.urls["audit"])) == 1


def test_what_an_operator_asks_for_is_told_without_what_cannot_be_read(
    events: QueueAccess, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    some_chat(turns=2)
    all_booked()
    totals = [item for item in Tables.of(store).conversations if item["pk"].endswith("#USAGE")]
    spoilt(store, next(item for item in totals if "#" in item["sk"]))
    of_days = ["usage", "--tenant", TENANT, "--from", f"{NOW:%Y-%m-%d}", "--to", f"{NOW:%Y-%m-%d}", "--format", "json"]
    assert main(of_days) == 1
    said = capsys.readouterr()
    assert [row["turns"] for row in json.loads(said.out)] == [2]
    assert "cannot be read" in said.err
    assert main(["reconcile", "--settled-seconds", "0"]) == 1
    assert "cannot be read: " in capsys.readouterr().out


@pytest.mark.usefixtures("events")
def test_running_turns_are_listed_without_one_that_cannot_be_read(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked in (turns, running):
        monkeypatch.setattr(asked, "now", lambda: LATER)
    strange, known = a_running_turn(), a_running_turn()
    key = keys.turn(strange.tenant_id, strange.chat_id, strange.request_id)
    spoilt(store, {**key._asdict(), "state": "running"})
    assert main(["turns", "running", "--json"]) == 1
    said = capsys.readouterr()
    assert [one["request_id"] for one in json.loads(said.out)] == [known.request_id]
    assert said.err == "1 turns cannot be read\n"


def test_an_audit_record_that_is_broken_is_passed_over(events: QueueAccess) -> None:
    some_chat(turns=2)
    sink = Path(current().audit.sink)
    for image in scan.outbox(NOW - timedelta(days=1), LATER):
        if image["queue"]["S"] == "audit":
            audit_sink.write(image["payload"]["S"], image["sk"]["S"], NOW)
    all_booked()
    assert reconcile_usage.prove(later(), TENANT, audit_sink.records(sink)).mismatches == []
    file = next(sink.rglob("*.jsonl"))
    file.write_text('{"event_ty')
    (file.parent / f"{uuid4()}.jsonl").write_text("[7]\n")
    named = [one.where for one in reconcile_usage.prove(later(), TENANT, audit_sink.records(sink)).mismatches]
    assert [where.split(" of turn ")[0] for where in named] == ["audit trail"]
