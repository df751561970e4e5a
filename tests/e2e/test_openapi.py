"""The OpenAPI document is valid, complete, and what the server really does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import validate

from minichat.domain.stream import NAMES, StreamEvent
from minichat.http.admin.app import QUEUES, TABLE, admin_routers
from minichat.http.problems import STATUS
from tests.conftest import ROOT
from tests.fuzz import aim
from tests.support.http.client import Stack

OPERATIONS = {
    "POST /chats",
    "GET /chats",
    "GET /chats/{chat_id}",
    "PATCH /chats/{chat_id}",
    "DELETE /chats/{chat_id}",
    "GET /chats/{chat_id}/messages",
    "POST /chats/{chat_id}/messages:stream",
    "GET /chats/{chat_id}/turns/{request_id}",
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
    "GET /health",
    "GET /openapi.json",
}


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    answer: dict[str, Any] = httpx2.get(f"{stack.base_url}/openapi.json").json()
    return answer


@pytest.mark.holds("contract.no-token")
def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


@pytest.mark.holds("contract.operations")
def test_the_document_has_every_operation(document: dict[str, Any]) -> None:
    prefix = "/mini-chat/v1"
    found = {f"{verb.upper()} {path.removeprefix(prefix)}" for path, ops in document["paths"].items() for verb in ops}
    assert found == OPERATIONS


@pytest.mark.holds("contract.codes")
def test_every_refusal_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    words = {error.code for error in STATUS}
    documented = set()
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]
                    documented |= set(response["description"].replace("`", "").split(" · "))
    for router in admin_routers(TABLE | QUEUES):  # the operator's API has no document of its own
        for route in router.routes:
            assert isinstance(route, APIRoute)
            for response in route.responses.values():
                documented |= set(response.get("description", "").replace("`", "").split(" · "))
    assert words - documented <= {"forbidden"}, "errors that no operation admits to"


def test_streams_describe_their_events(document: dict[str, Any]) -> None:
    stream = document["paths"]["/mini-chat/v1/chats/{chat_id}/messages:stream"]["post"]["responses"]["200"]["content"]
    assert stream["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/StreamEvent"}
    frames = document["components"]["schemas"]["StreamEvent"]["oneOf"]
    names = [frame["properties"]["event"]["const"] for frame in frames]
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
