"""The OpenAPI document is valid, complete, and what the server really does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openapi_spec_validator import validate

from minichat.http.problems import STATUS
from tests.client import Stack, User

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
    "GET /health",
    "GET /openapi.json",
}


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    answer: dict[str, Any] = httpx2.get(f"{stack.base_url}/openapi.json").json()
    return answer


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_the_document_has_every_operation(document: dict[str, Any]) -> None:
    prefix = "/mini-chat/v1"
    found = {f"{verb.upper()} {path.removeprefix(prefix)}" for path, ops in document["paths"].items() for verb in ops}
    assert found == OPERATIONS


def test_every_refusal_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    words = {error.code for error in STATUS}
    documented = set()
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]
                    documented |= set(response["description"].replace("`", "").split(" · "))
    assert words - documented <= {"forbidden"}, "errors that no operation admits to"


def test_streams_describe_their_events(document: dict[str, Any]) -> None:
    stream = document["paths"]["/mini-chat/v1/chats/{chat_id}/messages:stream"]["post"]["responses"]["200"]["content"]
    assert stream["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/StreamEvent"}
    frames = document["components"]["schemas"]["StreamEvent"]["oneOf"]
    names = [frame["properties"]["event"]["const"] for frame in frames]
    assert names == ["stream_started", "delta", "tool", "citations", "done", "error", "ping"]


# The second run aims at one real turn; it must not delete the chat under its own feet.
@pytest.mark.parametrize("aimed", [False, True], ids=["any ids", "a real turn"])
def test_generated_requests_find_no_failure_and_nothing_outside_the_document(
    stack: Stack, user: User, tmp_path: Path, aimed: bool
) -> None:
    chat_id = user.new_chat()
    turn = user.send(chat_id, "[[say:hi]][[delay:0]]").request_id
    config = tmp_path / "schemathesis.toml"
    known = f"[parameters]\nchat_id = {json.dumps(chat_id)}\nrequest_id = {json.dumps(turn)}\n" if aimed else ""
    config.write_text(known)
    without_delete = ["--exclude-path-regex", r"/chats/\{chat_id\}$"] if aimed else []
    checks = [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
    ]
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    command += [f"{stack.base_url}/openapi.json", "--header", f"Authorization: {user.http.headers['authorization']}"]
    command += ["--checks", ",".join(checks), "--max-examples", "20", "--seed", "1", "--no-color", *without_delete]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "Tested:" in run.stdout
