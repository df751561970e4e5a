"""Each function may do what it does, and nothing that it never does: its calls of a whole life against its role."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import boto3
import httpx2
import pytest
from botocore.client import BaseClient

from functions.attachment_cleanup import handler as attachment_cleanup
from functions.attachment_ingest import handler as attachment_ingest
from functions.audit.handler import handler as audit
from functions.chat_cleanup import handler as chat_cleanup
from functions.orphan_watchdog.handler import handler as watchdog
from functions.outbox_relay.handler import handler as outbox_relay
from functions.reconcile import handler as daily
from functions.thread_summary import handler as thread_summary
from functions.usage.handler import handler as usage
from minichat import moment
from minichat.domain.identity import AttachmentId, Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.domain.policy_layers import TenantLayer
from minichat.domain.stream import Told
from minichat.events import payloads
from minichat.events.base import Queue
from minichat.http.admin.app import QUEUES, TABLE, create_admin_app
from minichat.http.app import BUFFERED, STREAMING, create_app
from minichat.http.edge import Edge
from minichat.local.issuer import Issuer, as_uuid
from minichat.provider_entries import as_configured
from minichat.providers.files import Files
from minichat.providers.registry import Providers
from minichat.services import chats, erasing, exporting
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import InForce, Rules, first_policy
from minichat.services.send import send
from minichat.settings import Settings, Store, load
from minichat.storage import dynamodb, keys, leases, parts, policies, scan, transact
from tests.support.aws.roles import Calls
from tests.support.domain.builders import new_id
from tests.support.events.queue_access import Handler, QueueAccess, a_change, forget, invocation
from tests.support.http.gateway import PREFIX
from tests.support.http.given_files import PDF, a_picture
from tests.support.services.walk import answers_stay_lost
from tests.support.storage.faults import answers_with_events_lost

LONG_AGO = timedelta(minutes=20)
"""A turn that has been silent for so long is dead."""

# FastAPI's fields of models that are built late; a warning of pydantic's that changes nothing.
pytestmark = pytest.mark.filterwarnings("ignore:The 'alias' attribute")


@pytest.fixture
def access(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[QueueAccess]:
    """Queues that functions of this process use, with fresh tables and an empty audit trail."""
    with QueueAccess.used_here(store, monkeypatch, MINICHAT_AUDIT__SINK=str(tmp_path / "audit")) as made:
        yield made


@pytest.fixture
def calls(access: QueueAccess, store: Store, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is called from now on, with a bucket for uploads; nobody waits long for an answer that never comes."""
    monkeypatch.setattr(transact, "PATIENCE_SECONDS", 0.0)
    bucket = f"uploads-{uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=store.endpoint, region_name=store.region).create_bucket(Bucket=bucket)
    monkeypatch.setenv("MINICHAT_ATTACHMENTS__BUCKET", bucket)
    monkeypatch.setenv("MINICHAT_MANIFEST_SECRET", "secret")
    monkeypatch.setenv("MINICHAT_ATTACHMENTS__ENDPOINT", str(store.endpoint))
    forget()
    seen, clients = Calls(store, access, bucket), BaseClient  # whichever library made them
    call: Any = vars(clients)["_make_api_call"]

    def noted(client: Any, operation: str, said: dict[str, Any], *more: Any) -> Any:
        seen.note(client.meta.service_model.service_name, operation, said)
        return call(client, operation, said, *more)

    monkeypatch.setattr(clients, "_make_api_call", noted)
    on_loop = dynamodb.Connections.call

    async def noted_on_loop(self: dynamodb.Connections, operation: str, said: dict[str, Any]) -> dict[str, Any]:
        seen.note("dynamodb", operation, said)
        return await on_loop(self, operation, said)

    monkeypatch.setattr(dynamodb.Connections, "call", noted_on_loop)
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
        "MINICHAT_MANIFEST_SECRET": "secret",
        "MINICHAT_ATTACHMENTS__MAX_TOTAL_MB_PER_CHAT": "1",
        "MINICHAT_PROVIDERS": json.dumps({"openai": {"base_url": provider, "allow_insecure": True}}),
    }
    return load(variables)


@pytest.fixture
async def client(settings: Settings, tmp_path: Path, calls: Calls) -> AsyncIterator["Client"]:
    """A user of both functions, whose connections to providers are closed at the end."""
    token = Issuer(tmp_path).token("acme", "ann", now=moment.now(), lifetime=timedelta(hours=1))
    apps = {"ApiFunction": create_app(settings, BUFFERED), "StreamFunction": create_app(settings, STREAMING)}
    yield Client(apps, token, calls)
    for app in apps.values():
        assert isinstance(app, Edge)
        await app._app.state.minichat.machine.providers.aclose()  # type: ignore[attr-defined]


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


async def _a_turn(client: Client, chat: str, content: str = "[[say:yes]]", **said: Any) -> str:
    request_id = str(uuid4())
    body = {"content": content, "request_id": request_id, **said}
    answer = await client("StreamFunction", "POST", f"{chat}/messages:stream", json=body)
    assert answer.status_code == 200, answer.text
    return request_id


def _a_call(ago: timedelta = timedelta()) -> Call:
    return Call(Caller(TenantId(as_uuid("acme")), UserId(as_uuid("ann"))), moment.now() - ago, new_id)


def _rules(settings: Settings) -> Rules:
    return Rules(settings, first_policy(settings).in_deployment(settings.deployment, moment.now()))


def _a_dead_turn(chat_id: ChatId, rules: Rules) -> None:
    """A turn whose process told a word of its answer, and died."""
    call = _a_call(LONG_AGO)
    running = send(call, SendMessage(chat_id, "and then", RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    leases.progress(call, running.turn, provider_called=True)
    told = [Told("delta", {"type": "text", "content": "Well"})]
    transact.commit(parts.puts(running.turn, 1, told, kept=timedelta(hours=1)), token=new_id(call.now))


def _events(queue: str) -> list[str]:
    """What has left for a queue, as it comes out of it."""
    day = timedelta(days=1)
    images = [one for one in scan.outbox(moment.now() - day, moment.now() + day) if one["queue"]["S"] == queue]
    return [payloads.whole(image["type"]["S"], image["payload"]["S"]) for image in images]


def _arrived(chat_id: ChatId, attachment_id: str) -> str:
    """What S3 tells of an attachment's file that was put into the bucket."""
    key = keys.upload(_a_call().caller.tenant_id, chat_id, AttachmentId(attachment_id))
    return json.dumps({"Records": [{"s3": {"object": {"key": key}}}]})


async def _given(client: Client, chat_id: ChatId, content: bytes, kind: str) -> str:
    """The id of a new attachment, whose file waits in the bucket."""
    file = {"file": (f"a.{kind.partition('/')[2]}", content, kind)}
    return str((await client("ApiFunction", "POST", f"/chats/{chat_id}/attachments", files=file)).json()["id"])


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
    file = {"file": ("a.txt", b"x" * (1024 * 1024 + 1), "text/plain")}
    refused = await client(api, "POST", f"{chat}/attachments", files=file)
    assert refused.json()["code"] == "quota_exceeded"
    assert (await client(api, "GET", f"{chat}/attachments")).json()["items"]
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
    export = (await client(api, "POST", f"{chat}/exports")).json()
    assert (await client(api, "GET", f"/exports/{export['id']}")).status_code == 200
    assert (await client(api, "DELETE", chat)).status_code == 204
    assert (await client(api, "GET", "/quota/status")).status_code == 200
    await _with_openais_client(client)
    assert {function: calls.amiss(function) for function in (api, stream)} == {api: {}, stream: {}}


async def _with_openais_client(client: Client) -> None:
    """Each operation of the door for OpenAI's clients."""
    stream, door = "StreamFunction", "http://test/mini-chat/openai/v1"
    assert (await client(stream, "GET", f"{door}/models")).status_code == 200
    message = [{"role": "user", "content": "[[say:yes]]"}]
    completed = await client(stream, "POST", f"{door}/chat/completions", json={"model": "gpt-4.1", "messages": message})
    assert completed.json()["choices"][0]["message"]["content"] == "yes"
    keyed = {"headers": {"idempotency-key": uuid4().hex}}
    for _ in range(2):
        made = await client(stream, "POST", f"{door}/responses", json={"input": message}, **keyed)
        assert made.status_code == 200, made.text
    one = made.json()["id"]
    going_on = {"input": "[[say:no]]", "previous_response_id": one, "background": True}
    two = (await client(stream, "POST", f"{door}/responses", json=going_on)).json()["id"]
    for path in (one, f"{two}?stream=true", two):
        assert (await client(stream, "GET", f"{door}/responses/{path}")).status_code == 200
    assert (await client(stream, "POST", f"{door}/responses/{two}/cancel")).json()["status"] == "completed"
    assert (await client(stream, "DELETE", f"{door}/responses/{two}")).status_code == 200


class Served:
    """Requests of somebody with a role to the operator's API, whose functions are in this process."""

    def __init__(self, settings: Settings, state: Path, calls: Calls, *roles: str) -> None:
        token = Issuer(state).token("acme", "eve", now=moment.now(), lifetime=timedelta(hours=1), roles=roles)
        self._headers = {"authorization": f"Bearer {token}"}
        self._apps = {name: create_admin_app(settings, part) for name, part in ADMIN_PARTS.items()}
        self._calls = calls

    async def __call__(self, function: str, method: str, path: str, **said: Any) -> dict[str, Any]:
        """What is answered, which is no refusal."""
        transport = httpx2.ASGITransport(self._apps[function])
        with self._calls.of(function):
            async with httpx2.AsyncClient(transport=transport, base_url="http://test/mini-chat/admin/v1") as http:
                answer = await http.request(method, path, headers=self._headers, **said)
        assert answer.is_success or answer.status_code == 503, answer.text
        told: dict[str, Any] = answer.json() if answer.content else {}
        return told


ADMIN_PARTS = {"AdminFunction": TABLE, "AdminQueuesFunction": QUEUES}


async def test_the_functions_of_operators_may_do_what_they_do_and_nothing_else(
    client: Client, calls: Calls, access: QueueAccess, settings: Settings, store: Store, tmp_path: Path
) -> None:
    table, queues = ADMIN_PARTS
    auth = settings.auth.model_copy(update={"roles_claim": "roles"})
    settings = settings.model_copy(update={"queues": access.settings, "auth": auth})
    admin = Served(settings, tmp_path, calls, "tenant_admin")
    operator = Served(settings, tmp_path, calls, "operator", "support")
    chat_id = ChatId((await client("ApiFunction", "POST", "/chats", json={})).json()["id"])
    _a_dead_turn(chat_id, _rules(settings))
    tenant, soon = f"/tenants/{as_uuid('acme')}", (moment.now() + timedelta(hours=1)).isoformat()
    (running,) = (await admin(table, "GET", f"{tenant}/running_turns"))["items"]
    with answers_stay_lost(questions=False):
        await admin(table, "POST", f"{tenant}/running_turns/{chat_id}/{running['request_id']}/cancel")
    grant = await admin(table, "POST", f"{tenant}/grants", json={"user_id": "sue", "until": soon, "reason": "Ticket 7"})
    await admin(table, "DELETE", f"{tenant}/grants/{grant['id']}")
    wanted = {"name": "CRM", "scopes": ["chat:list"], "expires_at": soon}
    key = await admin(table, "POST", f"{tenant}/api_keys", json=wanted)
    await admin(table, "DELETE", f"{tenant}/api_keys/{key['id']}")
    await admin(table, "PUT", f"{tenant}/authorization", json={"policies": ""})
    export = await admin(table, "POST", f"{tenant}/exports", json={"user_id": "tom"})
    await admin(table, "GET", f"{tenant}/exports/{export['id']}")
    await admin(table, "GET", f"{tenant}/exports")
    erasure = await admin(table, "POST", f"{tenant}/erasures", json={"user_id": "tom"})
    await admin(table, "GET", f"{tenant}/erasures/{erasure['id']}")
    await admin(table, "POST", f"{tenant}/erasures", json={"whole_tenant": as_uuid("acme")})
    await admin(table, "PATCH", f"{tenant}/policy/kill_switches", json={"disable_images": True})
    await admin(table, "GET", f"{tenant}/policy/versions")
    await admin(table, "POST", f"{tenant}/providers/versions", json={"overrides": {}})
    await admin(table, "GET", f"{tenant}/providers")
    await admin(table, "GET", f"{tenant}/reconcile")
    today = moment.now().date().isoformat()
    await admin(table, "GET", f"{tenant}/usage", params={"from": today, "to": today})
    access.send("usage", "{}")
    body = json.dumps({"DDBStreamBatchInfo": {f"approximateArrivalOf{one}Record": soon for one in ("First", "Last")}})
    for name, url in access.settings.dead_letters.items():
        # What no queue takes again stays: the export's own, which its event source reads.
        access.client.send_message(QueueUrl=url, MessageBody=body, **_ordered(url))
        await operator(queues, "POST", f"/dead_letters/{name}/redrive")
    access.client.send_message(
        QueueUrl=access.settings.dead_letters["outbox-relay"], MessageBody=json.dumps({"item": {"pk": {"S": "?"}}})
    )
    await operator(queues, "POST", "/dead_letters/outbox-relay/redrive")
    await operator(queues, "GET", "/dead_letters/usage")
    await operator(queues, "GET", "/dead_letters")
    with answers_with_events_lost(store.outbox_table):
        await operator(queues, "GET", "/health")
    assert {function: calls.amiss(function) for function in ADMIN_PARTS} == {table: {}, queues: {}}


def _ordered(url: str) -> dict[str, str]:
    """What a message of a queue needs that keeps the order."""
    return {"MessageGroupId": "one", "MessageDeduplicationId": uuid4().hex} if url.endswith(".fifo") else {}


async def test_the_workers_of_the_books_may_do_what_they_do_and_nothing_else(
    client: Client, calls: Calls, access: QueueAccess, settings: Settings, store: Store
) -> None:
    chat_id = ChatId((await client("ApiFunction", "POST", "/chats", json={})).json()["id"])
    await _a_turn(client, f"/chats/{chat_id}")
    rules = _rules(settings)
    call = _a_call(LONG_AGO)
    _a_dead_turn(chat_id, rules)
    two_days_ago = _a_call(timedelta(days=2))
    chats.create(two_days_ago, chats.NewChat(temporary=True), rules)
    used = chats.create(two_days_ago, chats.NewChat(temporary=True), rules)
    chats.rename(_a_call(), used.chat_id, "Used")
    with calls.of("OrphanWatchdogFunction"), answers_stay_lost(questions=False):
        swept = watchdog({}, None)
    assert (swept["finalized"], swept["expired_chats"], swept["failed"], swept["failed_chats"]) == (1, 1, 0, 0)
    images = list(scan.outbox(moment.now() - timedelta(days=1), moment.now() + timedelta(days=1)))
    everywhere = [
        {**images[0], "queue": {"S": name}, "sk": {"S": new_id(moment.now())}} for name in sorted(get_args(Queue))
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
    place = policies.of_tenant(call.caller.tenant_id)
    policies.publish(TenantLayer(idle_chats_days=1), place, at=moment.now(), by="boss", token=new_id(call.now))
    chats.create(two_days_ago, chats.NewChat(), rules)
    with calls.of("ReconcileFunction"), answers_with_events_lost(store.outbox_table):
        run = daily.handler({}, None)
    assert (run["repaired"], run["idle_chats"]) == (1, 1)
    workers = (
        "OrphanWatchdogFunction",
        "OutboxRelayFunction",
        "AuditFunction",
        "UsageFunction",
        "ReconcileFunction",
    )
    assert {function: calls.amiss(function) for function in workers} == {one: {} for one in workers}


Consumed = Callable[[str, str, Handler, list[str]], Awaitable[int]]
"""Has a function handle these messages of a queue, and poison besides; how many have to come again."""


@pytest.fixture
def consumed(
    calls: Calls, access: QueueAccess, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Consumed]:
    """The consumers know the provider of this machine, and what lets an event out never gets an answer."""
    files, providers = Files(as_configured(settings.providers)), Providers(as_configured(settings.providers))
    for function in (attachment_ingest, attachment_cleanup, chat_cleanup):
        monkeypatch.setattr(function, "_means", replace(function._means, files=files))
    monkeypatch.setattr(thread_summary, "_providers", providers)
    monkeypatch.setattr(thread_summary, "_in_force", InForce(settings))

    async def consume(function: str, queue: str, handler: Handler, bodies: list[str]) -> int:
        for body in (*bodies, "{}"):
            access.send(queue, body)
        records = access.receive(access.settings.urls[queue])
        while len(records) <= len(bodies):
            records += access.receive(access.settings.urls[queue])
        with calls.of(function), answers_with_events_lost(store.outbox_table):
            # In a thread: a handler may have a loop of its own.
            answer = await asyncio.to_thread(handler, {"Records": records}, invocation())
        assert len(access.dead(queue)) == 1
        return len(answer["batchItemFailures"])

    yield consume
    files.close()
    thread_summary._loop.run(providers.aclose())


async def test_the_workers_of_files_and_of_tasks_may_do_what_they_do_and_nothing_else(
    client: Client, calls: Calls, consumed: Consumed
) -> None:
    chat_id = ChatId((await client("ApiFunction", "POST", "/chats", json={})).json()["id"])
    pdf = await _given(client, chat_id, PDF, "application/pdf")
    png = await _given(client, chat_id, a_picture(), "image/png")
    broken = await _given(client, chat_id, b"%PDF-1.7\n[[index:failed]]", "application/pdf")
    chat, said = f"/chats/{chat_id}", {"filename": "a.pdf", "content_type": "application/pdf", "size_bytes": 9}
    late = (await client("ApiFunction", "POST", f"{chat}/attachments/uploads", json=said)).json()["id"]
    told = [_arrived(chat_id, one) for one in (pdf, png, broken, str(uuid4()))]
    told.append(
        payloads.AttachmentExpected(tenant_id=_a_call().caller.tenant_id, chat_id=chat_id, attachment_id=late).payload()
    )
    again = await consumed("AttachmentIngestFunction", "attachment-ingest", attachment_ingest.handler, told)
    assert again == 1, "the one that is late"
    listed = (await client("ApiFunction", "GET", f"{chat}/attachments")).json()["items"]
    states = {one["id"]: one["status"] for one in listed}
    assert states == {pdf: "ready", png: "ready", broken: "failed", late: "pending"}
    for _ in range(6):
        await _a_turn(client, chat)
    tasks = _events("thread-summary")
    assert {json.loads(task)["event_type"] for task in tasks} == {"thread_summary_update", "chat_title", "doc_summary"}
    assert await consumed("ThreadSummaryFunction", "thread-summary", thread_summary.handler, tasks) == 0
    assert (await client("ApiFunction", "GET", chat)).json()["title"]
    assert (await client("ApiFunction", "GET", f"{chat}/attachments/{pdf}")).json()["doc_summary"]
    functions = ("AttachmentIngestFunction", "ThreadSummaryFunction")
    assert {function: calls.amiss(function) for function in functions} == {one: {} for one in functions}


async def test_the_workers_that_clean_up_may_do_what_they_do_and_nothing_else(
    client: Client, calls: Calls, consumed: Consumed, settings: Settings
) -> None:
    chat_id = ChatId((await client("ApiFunction", "POST", "/chats", json={})).json()["id"])
    pdf, other = [await _given(client, chat_id, PDF, "application/pdf") for _ in range(2)]
    arrived = [_arrived(chat_id, pdf), _arrived(chat_id, other)]
    assert await consumed("AttachmentIngestFunction", "attachment-ingest", attachment_ingest.handler, arrived) == 0
    assert (await client("ApiFunction", "DELETE", f"/chats/{chat_id}/attachments/{pdf}")).status_code == 204
    left = _events("attachment-cleanup")
    again = await consumed("AttachmentCleanupFunction", "attachment-cleanup", attachment_cleanup.handler, left)
    assert (len(left), again) == (1, 0)
    _a_dead_turn(chat_id, _rules(settings))
    boss = replace(_a_call(), caller=Caller(_a_call().caller.tenant_id, UserId("boss")))
    exporting.accept(boss, _a_call().caller.user_id, settings)
    kept = chats.create(_a_call(), chats.NewChat(), _rules(settings))
    exporting.of_chat(_a_call(), kept.chat_id, settings)
    chats.delete(_a_call(LONG_AGO - timedelta(minutes=1)), chat_id)
    erasing.accept(_a_call(), UserId("tom"), settings)
    left = _events("chat-cleanup")
    again = await consumed("ChatCleanupFunction", "chat-cleanup", chat_cleanup.handler, left)
    assert (len(left), again) == (4, 0)
    functions = ("AttachmentCleanupFunction", "ChatCleanupFunction")
    assert {function: calls.amiss(function) for function in functions} == {one: {} for one in functions}
