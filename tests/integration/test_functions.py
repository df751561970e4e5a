"""The Lambda handlers as a fresh process loads them, with events as API Gateway sends them."""

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

from minichat.local.issuer import Issuer
from minichat.settings import Store
from tests.conftest import ROOT

_INVOKE = """
import json, sys
from functions.api.handler import handler
class Context:
    aws_request_id = "r"
    def get_remaining_time_in_millis(self): return 10_000
print("ANSWERS" + json.dumps([handler(event, Context()) for event in json.load(sys.stdin)]))
"""


BUFFERED_ONLY = ("document", "listing", "multipart", "odata", "schemas")
WORKERS_ONLY = ("domain.metering", "events.consume", "services.metering", "services.reconcile", "storage.ledger")
THIRD_PARTY = {
    "annotated-doc", "annotated-types", "anyio", "aws-lambda-powertools", "botocore", "cffi", "cryptography", "fastapi",
    "httpx2", "idna", "jmespath", "opentelemetry-api", "pydantic", "pydantic-core", "pyjwt", "pynamodb",
    "python-dateutil", "python-multipart", "six", "starlette", "typing-extensions", "typing-inspection", "urllib3",
}  # fmt: skip
"""What both functions import of others: each one more is paid with every cold start (docs/decisions/0002)."""
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


def an_event(method: str, path: str, token: str | None = None, body: object = None, **query: str) -> dict[str, Any]:
    """A REST API proxy event."""
    headers = {"Content-Type": "application/json", "Host": "api.example.com"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return {
        "resource": "/{proxy+}",
        "path": f"/mini-chat/v1{path}",
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {"stage": "dev", "httpMethod": method, "identity": {"sourceIp": "203.0.113.7"}},
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def invoked(environment: dict[str, str], *events: dict[str, Any]) -> list[dict[str, Any]]:
    """What the api function answers to each event, in one process."""
    run = subprocess.run(
        [sys.executable, "-c", _INVOKE],
        input=json.dumps(events),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(run.stdout.split("ANSWERS")[1])
    return answers


def test_the_api_function_serves_the_buffered_operations(environment: dict[str, str]) -> None:
    token = environment["TOKEN"]
    created, listed, refused, health, streaming = invoked(
        environment,
        an_event("POST", "/chats", token, {"title": "From Lambda"}),
        an_event("GET", "/chats", token, limit="5"),
        an_event("GET", "/chats"),
        an_event("GET", "/health"),
        an_event("POST", "/chats/00000000-0000-4000-8000-000000000001/messages:stream", token, {"content": "x"}),
    )
    chat = json.loads(created["body"])
    assert (created["statusCode"], chat["title"]) == (201, "From Lambda")
    assert json.loads(listed["body"])["items"] == [chat]
    assert (refused["statusCode"], json.loads(refused["body"])["code"]) == (401, "unauthenticated")
    assert json.loads(health["body"])["status"] == "ok"
    # Streams are the other function's.
    assert streaming["statusCode"] == 404


def test_the_api_function_answers_the_preflights_of_all_operations(environment: dict[str, str]) -> None:
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    events = [
        an_event("OPTIONS", path) for path in ("/chats", f"/chats/{uuid4()}/messages:stream", f"/chats/{uuid4()}/turns")
    ]
    for event in (*events, health := an_event("GET", "/health")):
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


def test_wrong_settings_end_the_start_and_name_their_key(environment: dict[str, str]) -> None:
    wrong = environment | {"MINICHAT_STREAMING__CHANNEL_CAPACITY": "1"}
    run = subprocess.run(
        [sys.executable, "-c", "import functions.api.handler"], env=wrong, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "MINICHAT_STREAMING__CHANNEL_CAPACITY" in run.stderr


def test_the_document_of_the_api_function_has_the_streams_too(environment: dict[str, str]) -> None:
    (answer,) = invoked(environment, an_event("GET", "/openapi.json"))
    assert "/mini-chat/v1/chats/{chat_id}/messages:stream" in json.loads(answer["body"])["paths"]


@pytest.mark.parametrize(
    ("function", "never"),
    [
        ("api", ["boto3", "openai", "yaml", "uvicorn", "minichat.http.routes.streams", "minichat.local.stack"]),
        ("stream", ["boto3", "openai", "anthropic", "yaml", "uvicorn", "mangum", "minichat.http.routes.chats"]),
        ("api", ["minichat.http.document", "PIL"]),
        ("stream", [*(f"minichat.http.{name}" for name in BUFFERED_ONLY), "PIL"]),
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


@pytest.mark.parametrize(("function", "besides"), [("api", {"mangum"}), ("stream", set())])
def test_a_function_imports_of_others_what_is_accounted_for(
    environment: dict[str, str], function: str, besides: set[str]
) -> None:
    script = f"""
import sys, functions.{function}.handler
from importlib.metadata import packages_distributions
owners = packages_distributions()
print(*{{owner.lower() for name in sys.modules for owner in owners.get(name, ())}})
"""
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
