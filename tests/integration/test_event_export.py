"""Copies of events for consumers of others: on a queue, on a bus, at webhooks that fail."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from functions.event_export.handler import handler as event_export
from functions.webhook.handler import handler as webhook
from minichat.events import sqs
from minichat.settings import Store, current
from tests.support.domain.builders import NOW
from tests.support.events.queue_access import QueueAccess, a_change, forget, invocation, reason
from tests.support.storage.faults import refused, sqs_hook

SECRET = base64.b64encode(b"a key of thirty-two bytes, or so").decode()


@pytest.fixture
def queues(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueAccess]:
    with QueueAccess.used_here(store, monkeypatch) as access:
        yield access


def an_image(queue: str, event_type: str, tenant: str, **members: Any) -> dict[str, Any]:
    """An item of the outbox."""
    payload = json.dumps({"event_type": event_type, "tenant_id": tenant, "timestamp": NOW.isoformat(), **members})
    event_id = str(uuid4())
    text = {"pk": f"T#{tenant}#C#c", "sk": event_id, "queue": queue, "type": event_type, "dedupe": event_id}
    return {name: {"S": value} for name, value in (text | {"payload": payload}).items()}


def exported(*images: dict[str, Any]) -> list[str]:
    """What has to come again."""
    records = [a_change("INSERT", number, image, NOW) for number, image in enumerate(images)]
    return [one["itemIdentifier"] for one in event_export({"Records": records}, invocation())["batchItemFailures"]]


def a_queue(queues: QueueAccess, monkeypatch: pytest.MonkeyPatch, **more: str) -> str:
    """A queue of somebody's that gets copies."""
    url = str(queues.client.create_queue(QueueName=f"theirs-{uuid4().hex}")["QueueUrl"])
    for name, value in {"MINICHAT_EXPORT__QUEUE_URL": url, **more}.items():
        monkeypatch.setenv(name, value)
    forget()
    sqs.connect(current())
    return url


def test_others_get_what_happened_without_secrets_and_none_of_our_tasks(
    queues: QueueAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = a_queue(queues, monkeypatch)
    secret = "sk-proj-" + "a1B2" * 12
    told = an_image("audit", "something_new", "acme", prompt=f"my key is {secret}")
    assert (
        exported(told, an_image("thread-summary", "chat_title", "acme"), an_image("usage", "new_usage", "acme")) == []
    )
    found = {one["messageAttributes"]["event_type"]["stringValue"]: one for one in queues.all_of(url)}
    assert found.keys() == {"something_new", "new_usage"}
    copy = found["something_new"]
    assert secret not in copy["body"]
    assert json.loads(copy["body"])["tenant_id"] == "acme"
    said = {name: one["stringValue"] for name, one in copy["messageAttributes"].items()}
    assert (said["event_id"], said["dedupe_key"], said["tenant_id"]) == (told["sk"]["S"], told["dedupe"]["S"], "acme")


def test_who_wants_some_tenants_or_types_gets_no_others(queues: QueueAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"MINICHAT_EXPORT__TENANTS": '["acme"]', "MINICHAT_EXPORT__EVENT_TYPES": '["one", "two"]'}
    url = a_queue(queues, monkeypatch, **wanted)
    sent = [("one", "acme"), ("two", "globex"), ("three", "acme"), ("two", "acme")]
    assert exported(*(an_image("audit", kind, tenant) for kind, tenant in sent)) == []
    bodies = [json.loads(one["body"]) for one in queues.all_of(url)]
    assert sorted((one["event_type"], one["tenant_id"]) for one in bodies) == [("one", "acme"), ("two", "acme")]


def test_a_queue_that_refuses_for_a_while_gets_everything_from_there_on_again(
    queues: QueueAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = a_queue(queues, monkeypatch)
    images = [an_image("audit", "one", "acme", number=number) for number in range(25)]
    with sqs_hook("SendMessageBatch", [None, refused("ServiceUnavailable", status=503)]):
        again = exported(*images)
    assert again == [a_change("INSERT", 10, images[10], NOW)["dynamodb"]["SequenceNumber"]]
    assert exported(*images[10:]) == []
    assert {json.loads(one["body"])["number"] for one in queues.all_of(url)} == set(range(25))


def test_a_bus_gets_the_envelope_of_cloudevents(queues: QueueAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(queues.client.create_queue(QueueName=f"behind-{uuid4().hex}")["QueueUrl"])
    bus, rule = f"bus-{uuid4().hex}", f"rule-{uuid4().hex}"
    events = boto3.client("events", endpoint_url=current().queues.endpoint, region_name="us-east-1")
    events.create_event_bus(Name=bus)
    pattern = {"source": ["minichat"], "detail": {"data": {"tenant_id": ["acme"]}}}
    events.put_rule(Name=rule, EventBusName=bus, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, EventBusName=bus, Targets=[{"Id": "queue", "Arn": queues.arn_of(url)}])
    monkeypatch.setenv("MINICHAT_EXPORT__BUS", bus)
    forget()
    image = an_image("audit", "one", "acme", chat_id="c")
    assert (
        exported(image, an_image("audit", "one", "globex"), *(an_image("usage", "two", "acme") for _ in range(11)))
        == []
    )
    bodies = [json.loads(one["body"]) for one in queues.all_of(url)]
    assert sorted(one["detail-type"] for one in bodies) == ["one"] + ["two"] * 11
    detail = next(one["detail"] for one in bodies if one["detail-type"] == "one")
    assert detail["data"]["chat_id"] == detail["subject"] == "c"
    assert {name: detail[name] for name in ("specversion", "id", "source", "type", "datacontenttype")} == {
        "specversion": "1.0",
        "id": image["sk"]["S"],
        "source": "/minichat/acme",
        "type": "minichat.one",
        "datacontenttype": "application/json",
    }


class _Receiver(ThreadingHTTPServer):
    """An endpoint of somebody's, which answers as it is told, and keeps what it got."""

    def __init__(self, *answers: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def a_receiver(monkeypatch: pytest.MonkeyPatch, *answers: int, **entry: Any) -> Iterator[_Receiver]:
    """An endpoint that gets the events of acme."""
    with _Receiver(*answers) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        one: dict[str, Any] = {"name": "theirs", "url": receiver.url, "tenants": ["acme"], "allow_insecure": True}
        one = {**one, "secret": {"name": "WEBHOOK_SECRET"}, **entry}
        monkeypatch.setenv("WEBHOOK_SECRET", f"whsec_{SECRET}")
        monkeypatch.setenv("MINICHAT_EXPORT__WEBHOOKS", json.dumps([one]))
        forget()
        sqs.connect(current())
        yield receiver
        receiver.shutdown()


def test_a_webhook_that_fails_gets_the_event_again_signed_and_with_the_same_id(
    queues: QueueAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_receiver(monkeypatch, 500) as receiver:
        image = an_image("audit", "turn_completed_one_day", "acme")
        assert exported(image, an_image("audit", "turn_completed_one_day", "globex")) == []
        (record,) = queues.receive(queues.settings.urls["webhook"])
        for failures in ([record["messageId"]], []):
            answer: Any = webhook({"Records": [record]}, invocation())
            assert [one["itemIdentifier"] for one in answer["batchItemFailures"]] == failures
    (first, body), (second, same) = receiver.got
    assert first["webhook-id"] == second["webhook-id"] == image["sk"]["S"]
    assert body == same
    for headers in (first, second):
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(base64.b64decode(SECRET), signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("answer", "entry", "why"),
    [
        (410, {}, "the endpoint is gone (410)"),
        (204, {"allow_insecure": False}, "the endpoint is not https"),
        (204, {"allow_insecure": False, "url": "https://127.0.0.1/"}, "the endpoint's address is private"),
        (204, {"name": "others"}, "there is no webhook 'theirs'"),
    ],
)
def test_what_no_endpoint_will_ever_take_is_kept_for_an_operator(
    queues: QueueAccess, monkeypatch: pytest.MonkeyPatch, answer: int, entry: dict[str, Any], why: str
) -> None:
    queues.send("webhook", "{}", endpoint="theirs", event_id=str(uuid4()))
    with a_receiver(monkeypatch, answer, **entry):
        assert queues.handled("webhook", webhook) == []
    (letter,) = queues.dead("webhook")
    assert reason(letter) == why


def test_a_broken_item_keeps_no_other_from_leaving(queues: QueueAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    url = a_queue(queues, monkeypatch)
    broken: list[dict[str, Any]] = [{}, {"pk": {"S": "x"}}, an_image("audit", "one", "acme") | {"payload": {"S": "{"}}]
    assert exported(*broken, an_image("audit", "one", "acme")) == []
    assert len(queues.all_of(url)) == 1


def test_where_nobody_is_named_nothing_leaves(queues: QueueAccess, tmp_path: Path) -> None:
    assert exported(an_image("audit", "one", "acme")) == []
    assert queues.depth("webhook") == (0, 0)
