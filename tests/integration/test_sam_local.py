"""What `sam local` would start the functions with, beside `minichat dev`: without Docker, by SAM's own resolver."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from minichat.local import containers
from minichat.settings import load
from tests.conftest import ROOT, running_stack
from tests.support.aws.emulated_gateway import EmulatedGateway, functions_behind
from tests.support.aws.emulator import PYTHON, SAM, Built
from tests.support.http.client import Stack

pytestmark = [
    pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)"),
    pytest.mark.skipif(sys.platform != "linux", reason="only there any address of 127.0.0.0/8 is this machine's"),
]

BRIDGE = "127.0.0.2"
"""As good as the gateway of Docker's bridge: an address of this machine at which nothing of the stack listens."""


@dataclass(frozen=True)
class Beside:
    """A running stack that lets containers in, and each function's variables: SAM's view of both."""

    stack: Stack
    given: dict[str, str]
    functions: dict[str, dict[str, Any]]
    routes: list[list[str]]


@pytest.fixture(scope="module")
def beside(artifacts: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    """`minichat dev --containers`, and what SAM makes of its file and the built template."""
    state = tmp_path_factory.mktemp("beside")
    with running_stack(state, "--containers", BRIDGE) as stack:
        script = ROOT / "tests" / "support" / "aws" / "sam_view.py"
        command = [SAM / "bin" / "python", script, artifacts.folder / "sam-local.yaml", state / containers.FILE]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert run.returncode == 0, run.stderr
        given = json.loads((state / containers.FILE).read_text(encoding="utf-8"))["Parameters"]
        yield Beside(stack, given, **json.loads(run.stdout))


def test_every_variable_of_every_function_is_resolved_or_handed_over(artifacts: Built, beside: Beside) -> None:
    assert beside.functions.keys() == artifacts.functions.keys()
    assert {function["runtime"] for function in beside.functions.values()} == {f"python{PYTHON}"}
    for name, variables in beside.functions.items():
        assert {"MINICHAT_STORE__CONVERSATION_TABLE", "MINICHAT_QUEUES__ENDPOINT"} <= variables["template"].keys()
        for variable, value in variables["template"].items():
            is_resolved = isinstance(value, str | int) and "{{resolve:" not in str(value)
            assert is_resolved or variable in beside.given, (name, variable, value)


def test_every_path_and_method_is_one_functions(artifacts: Built, beside: Beside) -> None:
    # SAM mounts routes in an order that differs with every start.
    found = {(path, method): function for path, method, function in beside.routes}
    assert len(found) == len(beside.routes)
    behind = functions_behind(artifacts)
    any_method = {(path, method) for path, method in behind if method == "ANY"}
    assert {path for path, _ in found} == {path for path, _ in behind}
    assert all(found[route] == function for route, function in behind.items() if route not in any_method)
    assert all(found[path, method] == behind.get((path, method), behind[path, "ANY"]) for path, method in found)


def test_every_function_starts_with_the_settings_of_the_stack(beside: Beside) -> None:
    for name, variables in beside.functions.items():
        settings = load(variables["started"])
        assert (settings.store.conversation_table, settings.store.outbox_table) == (
            "minichat-conversations",
            "minichat-outbox",
        )
        auth = settings.auth
        assert (auth.issuer, auth.audience) == ("http://localhost/minichat-dev", "minichat")
        assert auth.features_claim is None
        assert auth.roles_claim == ("roles" if "MINICHAT_AUTH" in variables["template"] else None)
        assert list(settings.providers) == ["openai"]
        called = {settings.store.endpoint, settings.queues.endpoint, auth.jwks, settings.providers["openai"].base_url}
        called |= {*settings.queues.urls.values(), *settings.queues.dead_letters.values()}
        assert {re.split(r"[/:]+", address or "")[1] for address in called} == {BRIDGE}, name


def test_what_tokens_and_browsers_say_is_no_address_of_this_machine(beside: Beside) -> None:
    said = {
        "MINICHAT_AUTH__ISSUER": "http://localhost:8180/realms/dev",
        "MINICHAT_CORS__ALLOWED_ORIGINS": '["http://localhost:5173"]',
    }
    called = {"MINICHAT_STORE__ENDPOINT": "http://localhost:8000", "MINICHAT_AUTH__JWKS": "http://[::1]:8180/jwks"}
    seen, ports = containers.seen_from("host.docker.internal", said | called)
    assert seen == said | {
        "MINICHAT_STORE__ENDPOINT": "http://host.docker.internal:8000",
        "MINICHAT_AUTH__JWKS": "http://host.docker.internal:8180/jwks",
    }
    assert ports == [8000, 8180]


def test_with_these_variables_the_built_functions_hold_a_conversation(
    artifacts: Built, beside: Beside, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        emulators = {
            name: stack.enter_context(artifacts.emulator(name, beside.functions[name]["started"], log=tmp_path / name))
            for name in ("ApiFunction", "StreamFunction")
        }
        gateway = EmulatedGateway(functions_behind(artifacts), emulators, beside.stack.token())
        chat = {"chat_id": gateway.call("POST", "/chats", body={"title": "Capitals"}).json["id"]}
        sent = gateway.call("POST", "/chats/{chat_id}/messages:stream", chat, {"content": "[[say:Paris.]] Of France?"})
        # A whole document: SAM's gateway reads no stream.
        assert (sent.status, sent.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert sent.events == ["stream_started", "delta", "done"]
        turn = chat | {"request_id": json.loads(sent.body.split(b"data: ")[1].splitlines()[0])["request_id"]}
        assert gateway.call("GET", "/chats/{chat_id}/turns/{request_id}", turn).json["state"] == "done"
        with beside.stack.user(user="ann") as ann:  # what the containers wrote is what the stack reads
            assert [message["content"] for message in ann.messages(chat["chat_id"])][1] == "Paris."
        assert gateway.call("DELETE", "/chats/{chat_id}/turns/{request_id}", turn).status == 204
        assert gateway.call("DELETE", "/chats/{chat_id}", chat).status == 204
