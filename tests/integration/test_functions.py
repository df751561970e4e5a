"""The Lambda handlers as a fresh process loads them, with events as API Gateway sends them."""

import base64
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools.utilities.parser.models import APIGatewayProxyEventModel

from minichat.domain.identity import Call, Caller, RequestId, TenantId, UserId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.local.issuer import Issuer, as_uuid
from minichat.services import chats
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Settings, Store
from tests.conftest import ROOT
from tests.support.domain.builders import a_call, a_model, a_policy, new_id
from tests.support.http.gateway import proxy_event
from tests.support.patience import PATIENCE

LARGEST_ANSWER_BYTES = 6_291_556
"""Of a buffered answer, as it goes to the Runtime API (Lambda quotas: 6 MB)."""

_INVOKE = """
import json, sys
from functions.api.handler import handler
class Context:
    aws_request_id = "r"
    def get_remaining_time_in_millis(self): return 10_000
print("ANSWERS" + json.dumps([handler(event, Context()) for event in json.load(sys.stdin)]))
"""


BUFFERED_ONLY = ("document", "listing", "multipart", "odata", "schemas")
WORKERS_ONLY = (
    "domain.usage_ledger",
    "events.consume",
    "services.reconcile_usage",
    "services.reconcile_quota",
    "storage.usage_ledger",
)
THIRD_PARTY = {
    "annotated-doc", "annotated-types", "anyio", "aws-lambda-powertools", "botocore", "cffi", "cryptography", "fastapi",
    "greenlet", "httptools", "httpx2", "idna", "jmespath", "opentelemetry-api", "pydantic", "pydantic-core",
    "pyjwt", "pynamodb", "python-dateutil", "python-multipart", "six", "starlette", "typing-extensions",
    "typing-inspection", "urllib3",
}  # fmt: skip
"""What both functions import of others: each one more is paid with every cold start (docs/decisions/0002)."""
LOOP = "stream_runtime"
"""The module that serves the streaming function, and the folder of its layer."""
ADAPTERS = ("openai_responses", "openai_chat", "anthropic_messages", "bedrock_converse", "egress")


@pytest.fixture
def environment(store: Store, tmp_path: Path) -> dict[str, str]:
    issuer = Issuer(tmp_path)
    return {
        **os.environ,
        "MINICHAT_STORE__ENDPOINT": str(store.endpoint),
        "MINICHAT_STORE__CONVERSATION_TABLE": store.conversation_table,
        "MINICHAT_STORE__OUTBOX_TABLE": store.outbox_table,
        "MINICHAT_AUTH__JWKS": str(issuer.jwks_file),
        "MINICHAT_CURSOR_SECRET": "secret",
        "TOKEN": issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=timedelta(hours=1)),
    }


def invoked(environment: dict[str, str], *events: dict[str, Any]) -> list[dict[str, Any]]:
    """What the api function answers to each event, in one process."""
    run = subprocess.run(
        [sys.executable, "-c", _INVOKE],
        input=json.dumps(events),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(run.stdout.split("ANSWERS")[1])
    return answers


def test_the_api_function_serves_the_buffered_operations(environment: dict[str, str]) -> None:
    token = environment["TOKEN"]
    created, listed, refused, health, streaming = invoked(
        environment,
        proxy_event("POST", "/chats", token, {"title": "From Lambda"}),
        proxy_event("GET", "/chats", token, query={"limit": "5"}),
        proxy_event("GET", "/chats"),
        proxy_event("GET", "/health"),
        proxy_event("POST", "/chats/00000000-0000-4000-8000-000000000001/messages:stream", token, {"content": "x"}),
    )
    chat = json.loads(created["body"])
    assert (created["statusCode"], chat["title"]) == (201, "From Lambda")
    assert json.loads(listed["body"])["items"] == [chat]
    assert (refused["statusCode"], json.loads(refused["body"])["code"]) == (401, "unauthenticated")
    assert json.loads(health["body"])["status"] == "ok"
    # Streams are the other function's.
    assert streaming["statusCode"] == 404


OPTIONAL = (
    "headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters", "pathParameters",
    "stageVariables", "body", "isBase64Encoded",
)  # fmt: skip


def test_the_api_function_answers_events_that_lack_what_is_optional_or_have_what_proxies_add(
    environment: dict[str, str],
) -> None:
    event = proxy_event("GET", "/health")
    lacking = [{name: event[name] for name in event if name != one} for one in OPTIONAL]
    null = [event | {one: None} for one in OPTIONAL]
    strange = {"X-Forwarded-Port": "80, 443", "X-Name": "Grüße, 世界", "X-Request-Id": "ü" * 9000}
    proxied = [proxy_event("GET", "/health", headers={name: value}) for name, value in strange.items()]
    answers = invoked(environment, *lacking, *null, event | dict.fromkeys(OPTIONAL), *proxied)
    assert {answer["statusCode"] for answer in answers} == {200}


def test_the_api_function_answers_the_preflights_of_all_operations(environment: dict[str, str]) -> None:
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    events = [
        proxy_event("OPTIONS", path)
        for path in ("/chats", f"/chats/{uuid4()}/messages:stream", f"/chats/{uuid4()}/turns")
    ]
    for event in (*events, health := proxy_event("GET", "/health")):
        event["headers"] |= asking
        event["multiValueHeaders"] |= {name: [value] for name, value in asking.items()}
    allowing = environment | {"MINICHAT_CORS__ALLOWED_ORIGINS": "https://other.example,https://app.example"}
    for answer in invoked(allowing, *events, health):
        assert (answer["statusCode"], _header(answer, "access-control-allow-origin")) == (200, "https://app.example")
    for answer in invoked(environment, *events):
        assert (answer["statusCode"], _header(answer, "access-control-allow-origin")) in {(405, None), (404, None)}


def _header(answer: dict[str, Any], name: str) -> str | None:
    several = answer.get("multiValueHeaders", {}).get(name, [None])
    found: str | None = answer["headers"].get(name, several[0])
    return found


def test_an_event_is_what_a_gateway_sends(environment: dict[str, str]) -> None:
    event = json.loads(json.dumps(proxy_event("POST", "/chats", environment["TOKEN"], {"title": "x"})))
    assert APIGatewayProxyEventModel.model_validate(event).requestContext.identity.sourceIp is not None
    # Above 2,048 bytes it comes to the runtime in chunks.
    assert len(json.dumps(proxy_event("GET", "/chats", environment["TOKEN"]))) > 2_048


def test_what_a_gateway_leaves_out_or_sends_in_another_form_is_understood(environment: dict[str, str]) -> None:
    token = environment["TOKEN"]
    encoded = proxy_event("POST", "/chats", token)
    encoded |= {"body": base64.b64encode(b'{"title": "in base64"}').decode(), "isBase64Encoded": True}
    lower = proxy_event("GET", "/chats", token)
    for name in ("headers", "multiValueHeaders"):
        lower[name] = {key.lower(): value for key, value in lower[name].items()}
    single = proxy_event("GET", "/chats", token, query={"limit": "1"})
    single |= {"multiValueHeaders": None, "multiValueQueryStringParameters": None}
    bare = proxy_event("GET", "/chats")
    bare |= {"headers": None, "multiValueHeaders": None, "pathParameters": None}
    spaced = proxy_event("GET", "/chats/no such chat", token)
    answers = invoked(environment, encoded, lower, single, bare, spaced)
    assert [answer["statusCode"] for answer in answers] == [201, 200, 200, 401, 400]
    assert [one["title"] for one in json.loads(answers[1]["body"])["items"]] == ["in base64"]
    assert json.loads(answers[2]["body"])["page_info"]["limit"] == 1


def test_a_page_of_long_messages_is_no_larger_than_lambda_can_answer(environment: dict[str, str], store: Store) -> None:
    rules = Rules(Settings(), a_policy(a_model(preference={"is_default": True})))
    call = Call(Caller(TenantId(as_uuid("acme")), UserId(as_uuid("ann"))), a_call().now, new_id)
    chat_id = chats.create(call, chats.NewChat(), rules).chat_id
    answers = ['"\\\n' * 150_000, "é" * 500_000, "plain " * 100_000, "\x01" * 500_000]
    for text in answers:
        later = Call(call.caller, a_call().now, new_id)
        running = send(later, SendMessage(chat_id, "go on", RequestId(str(uuid4()))), rules)
        assert isinstance(running, RunningTurn)
        finalize(later, running.turn, Ending(TurnState.COMPLETED, text=text, usage=Usage(1, 1)), rules.settings)
    told: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        (answer,) = invoked(
            environment,
            proxy_event("GET", f"/chats/{chat_id}/messages", environment["TOKEN"], query={"limit": "100"} | cursor),
        )
        assert len(json.dumps(answer, ensure_ascii=False).encode()) <= LARGEST_ANSWER_BYTES
        page = json.loads(answer["body"])
        assert page["items"]
        told += [one["content"] for one in page["items"] if one["role"] == "assistant"]
        if page["page_info"]["next_cursor"] is None:
            break
        cursor = {"cursor": page["page_info"]["next_cursor"]}
    assert told == answers


def test_wrong_settings_end_the_start_and_name_their_key(environment: dict[str, str]) -> None:
    wrong = environment | {"MINICHAT_STREAMING__CHANNEL_CAPACITY": "1"}
    run = subprocess.run(
        [sys.executable, "-c", "import functions.api.handler"], env=wrong, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "MINICHAT_STREAMING__CHANNEL_CAPACITY" in run.stderr


def test_the_document_of_the_api_function_has_the_streams_too(environment: dict[str, str]) -> None:
    (answer,) = invoked(environment, proxy_event("GET", "/openapi.json"))
    assert "/mini-chat/v1/chats/{chat_id}/messages:stream" in json.loads(answer["body"])["paths"]


@pytest.mark.parametrize(
    ("function", "never"),
    [
        ("api", ["boto3", "openai", "yaml", "uvicorn", "minichat.http.routes.streamed_turns", "minichat.local.stack"]),
        ("stream", ["boto3", "openai", "anthropic", "yaml", "uvicorn", "mangum", "minichat.http.routes.chats"]),
        ("api", ["minichat.http.document", "PIL", "cedarpy"]),
        ("stream", [*(f"minichat.http.{name}" for name in BUFFERED_ONLY), "PIL", "cedarpy"]),
        ("stream", [*(f"minichat.{name}" for name in WORKERS_ONLY)]),
        # What connects is imported by the first call of a provider, with the adapter of its kind.
        ("stream", ["httpcore2", *(f"minichat.providers.{name}" for name in ADAPTERS)]),
    ],
)
def test_a_function_imports_nothing_that_it_does_not_need(
    environment: dict[str, str], function: str, never: list[str]
) -> None:
    script = f"import sys, functions.{function}.handler; print(sorted(set({never!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(("function", "loop", "besides"), [("api", "mangum", {"mangum"}), ("stream", LOOP, {"h11"})])
def test_a_function_imports_of_others_what_is_accounted_for(
    environment: dict[str, str], function: str, loop: str, besides: set[str]
) -> None:
    script = f"""
import sys, functions.{function}.handler, {loop}
from importlib.metadata import packages_distributions
owners = packages_distributions()
print(*{{owner.lower() for name in sys.modules for owner in owners.get(name, ())}})
"""
    environment |= {"PYTHONPATH": str(ROOT / "layers" / LOOP)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    # The environment of the tests has more, which some take when it is there; a function has its layer.
    lock = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    in_the_layer = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    imported = {name.replace("_", "-") for name in run.stdout.split()} & in_the_layer
    assert imported == THIRD_PARTY | besides


@pytest.mark.parametrize("function", ["api", "stream"])
def test_a_function_that_has_started_collects_garbage(environment: dict[str, str], function: str) -> None:
    script = f"import gc, functions.{function}.handler; print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True"]
