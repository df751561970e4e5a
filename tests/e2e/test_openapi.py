"""The OpenAPI document is valid, complete, and what the server really does."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from minichat.domain.stream import NAMES, StreamEvent
from minichat.http.problems import STATUS
from minichat.local.issuer import Issuer, as_uuid
from tests.conftest import ROOT
from tests.fuzz import aim
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

OPERATIONS = {
    "POST /chats",
    "GET /chats",
    "GET /chats/{chat_id}",
    "PATCH /chats/{chat_id}",
    "DELETE /chats/{chat_id}",
    "GET /chats/{chat_id}/messages",
    "POST /chats/{chat_id}/messages:stream",
    "GET /chats/{chat_id}/turns/{request_id}",
    "GET /chats/{chat_id}/turns/{request_id}/bill",
    "DELETE /chats/{chat_id}/turns/{request_id}",
    "PATCH /chats/{chat_id}/turns/{request_id}",
    "POST /chats/{chat_id}/turns/{request_id}/retry",
    "POST /chats/{chat_id}/turns/{request_id}/cancel",
    "GET /chats/{chat_id}/turns/{request_id}/stream",
    "GET /chats/{chat_id}/attachments",
    "POST /chats/{chat_id}/attachments",
    "POST /chats/{chat_id}/attachments/uploads",
    "GET /chats/{chat_id}/attachments/{attachment_id}",
    "DELETE /chats/{chat_id}/attachments/{attachment_id}",
    "PUT /chats/{chat_id}/messages/{message_id}/reaction",
    "DELETE /chats/{chat_id}/messages/{message_id}/reaction",
    "GET /models",
    "GET /models/{model_id}",
    "GET /quota/status",
    "GET /usage",
    "POST /chats/{chat_id}/exports",
    "POST /exports",
    "GET /exports/{export_id}",
    "GET /health",
    "GET /openapi.json",
}


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    answer: dict[str, Any] = httpx2.get(f"{stack.base_url}/openapi.json").json()
    return answer


@pytest.fixture(scope="module")
def operators(stack: Stack) -> dict[str, Any]:
    """The document of the operator's API."""
    answer: dict[str, Any] = httpx2.get(f"{stack.operators_url}/openapi.json").json()
    return answer


@pytest.mark.holds("contract.no-token")
def test_the_documents_are_valid(document: dict[str, Any], operators: dict[str, Any]) -> None:
    validate(document)
    validate(operators)
    assert not document["paths"].keys() & operators["paths"].keys()


@pytest.mark.holds("contract.operations")
def test_the_document_has_every_operation(document: dict[str, Any]) -> None:
    prefix = "/mini-chat/v1"
    found = {f"{verb.upper()} {path.removeprefix(prefix)}" for path, ops in document["paths"].items() for verb in ops}
    assert found == OPERATIONS


@pytest.mark.holds("contract.codes")
def test_every_refusal_is_documented_as_a_problem(document: dict[str, Any], operators: dict[str, Any]) -> None:
    words = {error.code for error in STATUS}
    documented = set()
    for path, operations in (document["paths"] | operators["paths"]).items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    told = set(response["content"]) - {"application/json" if path.endswith("/admin/v1/health") else ""}
                    assert told == {"application/problem+json"}
                    documented |= set(response["description"].replace("`", "").split(" · "))
    assert words - documented <= {"forbidden"}, "errors that no operation admits to"


def test_the_operators_document_has_an_example_of_every_body_that_fits_its_schema(operators: dict[str, Any]) -> None:
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]
        for operations in operators["paths"].values()
        for operation in operations.values()
        if "requestBody" in operation
    ]
    assert bodies
    for body in bodies:
        for example in body["examples"]:
            Draft202012Validator(body | {"components": operators["components"]}).validate(example)


def test_what_operators_are_answered_is_what_their_document_says(stack: Stack, operators: dict[str, Any]) -> None:
    token = Issuer(stack.state).token(
        "acme", "olga", now=datetime.now(UTC), lifetime=timedelta(hours=1), roles=["operator"]
    )
    values = {
        "tenant_id": as_uuid("acme"),
        "user_id": as_uuid("olga"),
        "version": "1",
        "queue": "usage",
        "erasure_id": "none",
        "export_id": "none",
    }
    today = datetime.now(UTC).date().isoformat()
    read = {path: operations["get"] for path, operations in operators["paths"].items() if "get" in operations}
    origin, headers = stack.base_url.removesuffix("/mini-chat/v1"), {"authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=origin, headers=headers, timeout=PATIENCE, trust_env=False) as http:
        for path, operation in read.items():
            answer = http.get(path.format(**values), params={"from": today, "to": today})
            told = operation["responses"][str(answer.status_code)]["content"]
            schema = told[answer.headers["content-type"]]["schema"]
            Draft202012Validator(schema | {"components": operators["components"]}).validate(answer.json())


def test_streams_describe_their_events(document: dict[str, Any]) -> None:
    streams = [
        operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
        for operations in document["paths"].values()
        for operation in operations.values()
        if operation["operationId"] in {"sendMessage", "retryTurn", "editTurn", "resumeTurn"}
    ]
    assert len(streams) == 4
    for whole, one in (stream["anyOf"] for stream in streams):
        assert (whole["type"], whole["contentSchema"]) == ("string", {"$ref": "#/components/schemas/StreamEvent"})
        assert one == {"$ref": "#/components/schemas/StreamData"}
    names = document["components"]["schemas"]["StreamEvent"]["discriminator"]["mapping"]
    assert set(names) == {NAMES[kind] for kind in get_args(StreamEvent)}


# Of the short run, which is the same each time; `make fuzz` sets the number for the long one.
CASES = int(os.environ.get("FUZZ_CASES", "0"))
EXAMPLES = 40 if CASES else 4
"""Of each operation in one round, besides those that schemathesis makes of the document's every edge (`coverage`)."""
_PHASES = {False: "coverage,fuzzing,stateful", True: "coverage,fuzzing"}
_SHORT = {False: "coverage,stateful", True: "fuzzing"}

_CONFIG = f"""
hooks = {json.dumps(str(ROOT / "tests" / "fuzz" / "hooks.py"))}
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 413, 415, 422, 429]
"""


# Those that are aimed find what they ask for; aimed anew each time they have no history that could be judged.
@pytest.mark.parametrize("aimed", [False, True], ids=["any ids", "what is there"])
@pytest.mark.holds("contract.allowed")
def test_generated_requests_find_no_difference_between_the_document_and_the_server(
    stack: Stack, tmp_path: Path, aimed: bool
) -> None:
    (tmp_path / "schemathesis.toml").write_text(_CONFIG)
    phases = _PHASES[aimed] if CASES else _SHORT[aimed]
    done, seed = 0, 0
    while done < max(CASES // 2, 1):
        seed += 1
        with stack.user() as user:  # with a quota of their own
            token = user.http.headers["authorization"]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            if aimed:
                environment |= {aim.BASE_URL: stack.base_url, aim.AUTHORIZATION: token}
            command = [sys.executable, "-m", "schemathesis.cli", "run", f"{stack.base_url}/openapi.json"]
            command += ["--header", f"Authorization: {token}", "--checks", "all", "--phases", phases]
            command += ["--max-examples", str(EXAMPLES), "--seed", str(seed), "--generation-database", "none"]
            run = subprocess.run(
                [*command, "--continue-on-failure", "--no-color"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        assert run.returncode == 0, run.stdout[-12_000:] + run.stderr[-2000:]
        (found,) = re.findall(r"(\d+) generated", run.stdout)
        done += int(found)
        print(f"round {seed}: {found} requests, {done} in all, no difference")
