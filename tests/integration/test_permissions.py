"""Each function may do what it does, and nothing that it never does: its calls of a whole life against its role."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx2
import pytest
from botocore.client import BaseClient

from functions.audit.handler import handler as audit
from functions.orphan_watchdog.handler import handler as watchdog
from functions.outbox_relay.handler import handler as outbox_relay
from functions.reconcile import handler as daily
from functions.usage.handler import handler as usage
from minichat import moment
from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.events import queues
from minichat.http.app import BUFFERED, STREAMING, create_app
from minichat.local.issuer import Issuer, as_uuid
from minichat.local.tables import load_template
from minichat.services.rules import Rules
from minichat.services.send import Running, SendMessage, send
from minichat.settings import Settings, Store, current, load
from minichat.storage import keys, whole
from minichat.storage.items import connect
from tests.builders import new_id
from tests.conftest import ROOT
from tests.gateway import PREFIX
from tests.integration.walk import answers_stay_lost
from tests.queue_access import QueueAccess, a_change, invocation

# FastAPI's fields of models that are built late; a warning of pydantic's that changes nothing.
pytestmark = pytest.mark.filterwarnings("ignore:The 'alias' attribute")

Permission = tuple[str, str]
"""An action, and the parameter of infra/identity.yaml that names what it is done to."""

_WRITES = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}
BY_OTHERS = {
    "logs": "Lambda writes a function's log with its role",
    "sqs:ReceiveMessage": "Lambda's poller reads the queue with it",
    "sqs:DeleteMessage": "so does it delete what was done",
    "sqs:GetQueueAttributes": "and ask how much there is",
    "sqs:ChangeMessageVisibility": "and give back what failed",
    "dynamodb:DescribeStream": "Lambda's poller reads the stream with it",
    "dynamodb:GetRecords": "as above",
    "dynamodb:GetShardIterator": "as above",
    "dynamodb:ListStreams": "as above",
    "secretsmanager": "the key of a provider, where it has one; `tests/integration/test_provider_answers.py`",
}
"""What is done with a role by others than its function, or only with a provider that has a key."""

ELSEWHERE = {
    ("StreamFunction", "dynamodb:ConditionCheckItem", "ConversationTableArn"): "two that take the same messages back",
    ("OrphanWatchdogFunction", "dynamodb:PutItem", "ConversationTableArn"): "the text that a dead turn had told",
    ("AuditFunction", "s3:PutObject", "AuditBucketArn/*"): "the trail is a folder here",
}
"""What other tests show, and why it does not happen here."""


class Calls:
    """What each function has called AWS for."""

    def __init__(self, store: Store, access: QueueAccess, bucket: str) -> None:
        self.made: dict[str, set[Permission]] = defaultdict(set)
        self._function = ""
        self._names = {
            store.conversation_table: "ConversationTableArn",
            store.outbox_table: "OutboxTableArn",
            bucket: "UploadsBucketArn/*",
            **{url: f"{_camel(name)}QueueArn" for name, url in access.settings.urls.items()},
            **{url: f"{_camel(name)}DeadLetterQueueArn" for name, url in access.settings.dead_letters.items()},
        }

    @contextmanager
    def of(self, function: str) -> Iterator[None]:
        """Calls meanwhile are this function's."""
        self._function = function
        yield
        self._function = ""

    def note(self, service: str, operation: str, said: dict[str, Any]) -> None:
        """One call, as its client was asked for it."""
        if self._function:
            self.made[self._function] |= {
                (f"{service}:{action}", self._names.get(named, named) + below)
                for action, named, below in _actions(operation, said)
            }


def _actions(operation: str, said: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Action, table, queue or bucket, and what of it."""
    if operation == "TransactWriteItems":
        for item in said["TransactItems"]:
            ((kind, about),) = item.items()
            yield _WRITES[kind], about["TableName"], ""
    elif operation == "BatchGetItem":
        yield from ((operation, table, "") for table in said["RequestItems"])
    elif "TableName" in said:
        yield operation, said["TableName"], f"/index/{said['IndexName']}" if "IndexName" in said else ""
    elif "QueueUrl" in said:
        yield operation.removesuffix("Batch"), said["QueueUrl"], ""
    else:
        yield operation, said["Bucket"], ""


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _allowed(function: str) -> set[Permission]:
    role = load_template(ROOT / "infra" / "identity.yaml")["Resources"][f"{function.removesuffix('Function')}Role"]
    (policy,) = role["Properties"]["Policies"]
    return {
        (action, resource.replace("${", "").replace("}", ""))
        for statement in policy["PolicyDocument"]["Statement"]
        for action in _several(statement["Action"])
        for resource in _several(statement["Resource"])
    }


def _several(said: str | list[str]) -> list[str]:
    return [said] if isinstance(said, str) else said


@pytest.fixture
def access(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[QueueAccess]:
    """Queues that functions of this process use, with fresh tables and an empty audit trail."""
    made = QueueAccess.made_at(str(store.endpoint), store.region)
    for name, value in (made.environment | {"MINICHAT_AUDIT__SINK": str(tmp_path / "audit")}).items():
        monkeypatch.setenv(name, value)
    current.cache_clear()
    queues.connect(current())
    connect(store)
    yield made
    current.cache_clear()


@pytest.fixture
def calls(access: QueueAccess, store: Store, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is called from now on, with a bucket for uploads."""
    bucket = f"uploads-{uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=store.endpoint, region_name=store.region).create_bucket(Bucket=bucket)
    monkeypatch.setenv("MINICHAT_ATTACHMENTS__BUCKET", bucket)
    monkeypatch.setenv("MINICHAT_ATTACHMENTS__ENDPOINT", str(store.endpoint))
    current.cache_clear()
    seen, clients = Calls(store, access, bucket), BaseClient  # whichever library made them
    call: Any = vars(clients)["_make_api_call"]

    def noted(client: Any, operation: str, said: dict[str, Any], *more: Any) -> Any:
        seen.note(client.meta.service_model.service_name, operation, said)
        return call(client, operation, said, *more)

    monkeypatch.setattr(clients, "_make_api_call", noted)
    return seen


@pytest.fixture
def settings(calls: Calls, store: Store, provider: str, tmp_path: Path) -> Settings:
    """A deployment's, at the engine and the provider of this machine."""
    del calls
    variables = {
        "MINICHAT_STORE__ENDPOINT": str(store.endpoint),
        "MINICHAT_STORE__CONVERSATION_TABLE": store.conversation_table,
        "MINICHAT_STORE__OUTBOX_TABLE": store.outbox_table,
        "MINICHAT_AUTH__JWKS": str(Issuer(tmp_path).jwks_file),
        "MINICHAT_CURSOR_SECRET": "secret",
        "MINICHAT_PROVIDERS": json.dumps({"openai": {"base_url": provider, "allow_insecure": True}}),
    }
    return load(variables)


@pytest.fixture
def client(settings: Settings, tmp_path: Path, calls: Calls) -> "Client":
    """A user of both functions."""
    token = Issuer(tmp_path).token("acme", "ann", now=moment.now(), lifetime=timedelta(hours=1))
    apps = {"ApiFunction": create_app(settings, BUFFERED), "StreamFunction": create_app(settings, STREAMING)}
    return Client(apps, token, calls)


class Client:
    """Requests to one function or the other, in this process."""

    def __init__(self, apps: dict[str, Any], token: str, calls: Calls) -> None:
        self._apps, self._calls = apps, calls
        self._headers = {"authorization": f"Bearer {token}"}

    async def __call__(self, function: str, method: str, path: str, **said: Any) -> httpx2.Response:
        """The answer, whole."""
        headers = self._headers | said.pop("headers", {})
        transport = httpx2.ASGITransport(self._apps[function])
        with self._calls.of(function):
            async with httpx2.AsyncClient(transport=transport, base_url=f"http://test{PREFIX}") as http:
                return await http.request(method, path, headers=headers, **said)


def _unused(function: str, made: set[Permission]) -> set[Permission]:
    return {
        (action, resource)
        for action, resource in _allowed(function) - made
        if action not in BY_OTHERS and action.partition(":")[0] not in BY_OTHERS
        if (function, action, resource) not in ELSEWHERE
    }


async def _a_turn(client: Client, chat: str, content: str = "[[say:yes]]", **said: Any) -> str:
    request_id = str(uuid4())
    body = {"content": content, "request_id": request_id, **said}
    answer = await client("StreamFunction", "POST", f"{chat}/messages:stream", json=body)
    assert answer.status_code == 200, answer.text
    return request_id


async def test_the_functions_of_the_api_may_do_what_they_do_and_nothing_else(client: Client, calls: Calls) -> None:
    api, stream = "ApiFunction", "StreamFunction"
    with answers_stay_lost(questions=False):
        created = await client(api, "POST", "/chats", json={})
    assert created.status_code == 201
    keyed = {"idempotency-key": uuid4().hex}
    assert (await client(api, "POST", "/chats", json={}, headers=keyed)).status_code == 201
    chat = f"/chats/{created.json()['id']}"
    assert (await client(api, "GET", "/chats")).json()["items"]
    assert (await client(api, "PATCH", chat, json={"title": "x"})).status_code == 200
    file = {"file": ("a.txt", b"text", "text/plain")}
    attached = (await client(api, "POST", f"{chat}/attachments", files=file)).json()["id"]
    for method in ("GET", "DELETE"):
        assert (await client(api, method, f"{chat}/attachments/{attached}")).is_success
    failed = await _a_turn(client, chat, "[[status:400]][[fail-times:1]]")
    assert (await client(stream, "POST", f"{chat}/turns/{failed}/retry")).status_code == 200
    turn = await _a_turn(client, chat, "x" * 20_000)
    answer = (await client(api, "GET", f"{chat}/messages")).json()["items"][-1]["id"]
    for method, body in (("PUT", {"reaction": "like"}), ("DELETE", None)):
        assert (await client(api, method, f"{chat}/messages/{answer}/reaction", json=body)).is_success
    assert (await client(stream, "POST", f"{chat}/turns/{turn}/retry")).status_code == 200
    turn = await _a_turn(client, chat)
    edited = await client(stream, "PATCH", f"{chat}/turns/{turn}", json={"content": "[[say:no]]"})
    assert edited.status_code == 200
    turn = await _a_turn(client, chat, "[[say:at last]]")
    assert (await client(stream, "GET", f"{chat}/turns/{turn}/stream")).status_code == 200
    assert (await client(api, "GET", f"{chat}/turns/{turn}")).status_code == 200
    assert (await client(api, "POST", f"{chat}/turns/{turn}/cancel")).status_code == 200
    with answers_stay_lost(questions=False):
        assert (await client(api, "DELETE", f"{chat}/turns/{turn}")).status_code == 204
        await _a_turn(client, chat)
    assert (await client(api, "DELETE", chat)).status_code == 204
    assert (await client(api, "GET", "/quota/status")).status_code == 200
    for function in (api, stream):
        assert calls.made[function] - _allowed(function) == set(), function
        assert _unused(function, calls.made[function]) == set(), function


async def test_the_workers_of_the_books_may_do_what_they_do_and_nothing_else(
    client: Client, calls: Calls, access: QueueAccess, settings: Settings, store: Store
) -> None:
    chat_id = ChatId((await client("ApiFunction", "POST", "/chats", json={})).json()["id"])
    await _a_turn(client, f"/chats/{chat_id}")
    rules = Rules(settings, client._apps["StreamFunction"]._app.state.minichat.rules.policy)
    long_ago = moment.now() - timedelta(minutes=20)
    call = Call(Caller(TenantId(as_uuid("acme")), UserId(as_uuid("ann"))), long_ago, new_id)
    assert isinstance(send(call, SendMessage(chat_id, "and then", RequestId(str(uuid4()))), rules), Running)
    with calls.of("OrphanWatchdogFunction"), answers_stay_lost(questions=False):
        assert watchdog({}, None)["finalized"] == 1
    images = list(whole.outbox(moment.now() - timedelta(days=1), moment.now() + timedelta(days=1)))
    everywhere = [
        {**images[0], "queue": {"S": name}, "sk": {"S": new_id(moment.now())}} for name in sorted(access.settings.urls)
    ]
    poison = {"pk": images[0]["pk"], "sk": {"S": new_id(moment.now())}}
    with calls.of("OutboxRelayFunction"):
        told = [*images, *everywhere, poison]
        outbox_relay(
            {"Records": [a_change("INSERT", number, image) for number, image in enumerate(map(dict, told))]}, None
        )
    for function, queue, handler in (("AuditFunction", "audit", audit), ("UsageFunction", "usage", usage)):
        access.send(queue, "{}")
        records = access.all_of(access.settings.urls[queue])
        with calls.of(function):
            handler({"Records": records}, invocation())
    month = keys.quota(call.caller.tenant_id, call.caller.user_id, f"{moment.now():%Y-%m}-01")
    tables = boto3.client("dynamodb", endpoint_url=store.endpoint, region_name=store.region)
    tables.update_item(
        TableName=store.conversation_table,
        Key={name: {"S": value} for name, value in month._asdict().items()},
        UpdateExpression="ADD #total :more",
        ExpressionAttributeNames={"#total": "total"},
        ExpressionAttributeValues={":more": {"N": "7"}},
    )
    with calls.of("ReconcileFunction"):
        assert daily.handler({}, None)["repaired"] == 1
    for function in (
        "OrphanWatchdogFunction",
        "OutboxRelayFunction",
        "AuditFunction",
        "UsageFunction",
        "ReconcileFunction",
    ):
        assert calls.made[function] - _allowed(function) == set(), function
        assert _unused(function, calls.made[function]) == set(), function
