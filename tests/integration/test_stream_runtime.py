"""The streaming runtime against the Runtime API: chunks leave one by one, and every failure ends its invocation."""

import asyncio
import base64
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.domain.turn import Turn, TurnState
from minichat.local.issuer import Issuer, as_uuid
from minichat.moment import new_id, now
from minichat.services import chats
from minichat.services.rules import Rules, first_policy
from minichat.settings import Settings, Store
from minichat.storage import messages, turns
from tests.conftest import ROOT
from tests.integration.runtime_api import RuntimeApi
from tests.integration.test_functions import an_event
from tests.provider_files import a_scripted_provider

LAYER = ROOT / "layers" / "stream_runtime"

_APP = """
import asyncio

async def app(scope, receive, send):
    request = await receive()
    path = scope["path"].rsplit("/", 1)[1]
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream"),
             (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-length", b"99")]}
    if path == "early":
        raise ValueError("before the start")
    if path == "silent":
        return
    await send(start)
    if path == "empty":
        await send({"type": "http.response.body", "body": b""})
        return
    if path == "echo":
        query = scope["query_string"].decode()
        body = f"{scope['method']} {query} {dict(scope['headers'])[b'x-name'].decode()} ".encode() + request["body"]
        await send({"type": "http.response.body", "body": body})
        return
    if path == "gated":
        reader, writer = await asyncio.open_connection("127.0.0.1", int(dict(scope["headers"])[b"x-gate"]))
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
            await reader.readline()
        writer.close()
    if path == "late":
        await send({"type": "http.response.body", "body": b"data: 0\\n\\n", "more_body": True})
        raise ValueError("after the start")
    await send({"type": "http.response.body", "body": b"", "more_body": False})
"""


@asynccontextmanager
async def _running(
    api: RuntimeApi, folder: Path, handler: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The runtime as its wrapper starts it, with an app of the test's."""
    (folder / "the_app.py").write_text(_APP)
    process = await asyncio.create_subprocess_exec(
        str(LAYER / "stream-bootstrap"),
        sys.executable,
        "/var/runtime/bootstrap.py",
        env={
            **os.environ,
            **environment,
            "_HANDLER": handler,
            "AWS_LAMBDA_RUNTIME_API": api.host,
            "LAMBDA_TASK_ROOT": str(folder),
            "PYTHONPATH": str(LAYER),
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _event(path: str, **headers: str) -> dict[str, Any]:
    event = an_event("POST", path, body={"a": "ü"}, q="1 2")
    event["multiValueHeaders"] |= {name: [value] for name, value in headers.items()}
    return event


async def test_every_chunk_leaves_before_the_next_is_made(tmp_path: Path) -> None:
    gates: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: gates.put_nowait(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with RuntimeApi() as api, _running(api, tmp_path, "the_app.app"):
        streamed = await api.invoke(_event("/gated", **{"X-Gate": str(port)}))
        assert streamed.head == {
            "statusCode": 200,
            "headers": {"content-type": "text/event-stream"},
            "cookies": ["a=1", "b=2"],
        }
        gate = await gates.get()
        for number in range(3):
            # The app is waiting at its gate: what has arrived was sent before it knew of the next.
            assert await streamed.chunk() == b"data: %d\n\n" % number
            gate.write(b"\n")
        assert await streamed.chunk() is None
        assert streamed.trailers == {}
        gate.close()
    server.close()


async def test_the_request_reaches_the_app_as_it_was(tmp_path: Path) -> None:
    async with RuntimeApi() as api, _running(api, tmp_path, "the_app.app"):
        plain = await (await api.invoke(_event("/echo", **{"X-Name": "one"}))).rest()
        assert plain.decode() == 'POST q=1+2 one {"a": "\\u00fc"}'
        encoded = _event("/echo", **{"X-Name": "two"}) | {
            "body": base64.b64encode(b"\xff\x00").decode(),
            "isBase64Encoded": True,
        }
        assert await (await api.invoke(encoded)).rest() == b"POST q=1+2 two \xff\x00"


async def test_an_empty_body_has_a_byte(tmp_path: Path) -> None:
    async with RuntimeApi() as api, _running(api, tmp_path, "the_app.app"):
        assert await (await api.invoke(_event("/empty"))).rest() == b"\n"


@pytest.mark.parametrize("path", ["/early", "/silent"])
async def test_a_failure_before_the_start_is_a_problem_and_the_next_invocation_works(tmp_path: Path, path: str) -> None:
    async with RuntimeApi() as api, _running(api, tmp_path, "the_app.app"):
        failed = await api.invoke(_event(path))
        assert failed.head["statusCode"] == 500
        assert json.loads(await failed.rest())["code"] == "internal_error"
        assert await (await api.invoke(_event("/empty"))).rest() == b"\n"


async def test_a_failure_after_the_start_is_told_in_the_trailers(tmp_path: Path) -> None:
    async with RuntimeApi() as api, _running(api, tmp_path, "the_app.app"):
        failed = await api.invoke(_event("/late"))
        assert await failed.rest() == b"data: 0\n\n"
        assert failed.trailers["lambda-runtime-function-error-type"] == "ValueError"
        told = json.loads(base64.b64decode(failed.trailers["lambda-runtime-function-error-body"]))
        assert told["errorMessage"] == "after the start"
        assert await (await api.invoke(_event("/empty"))).rest() == b"\n"


async def test_an_app_that_cannot_be_imported_is_told_to_lambda(tmp_path: Path) -> None:
    async with RuntimeApi() as api, _running(api, tmp_path, "the_app.missing") as process:
        async with asyncio.timeout(20):
            assert await process.wait() == 1
        assert [error["errorType"] for error in api.init_errors] == ["AttributeError"]


async def test_a_snapshot_is_taken_before_the_first_invocation(tmp_path: Path) -> None:
    async with (
        RuntimeApi() as api,
        _running(api, tmp_path, "the_app.app", AWS_LAMBDA_INITIALIZATION_TYPE="snap-start"),
    ):
        await (await api.invoke(_event("/empty"))).rest()
        assert api.restores == 1


async def test_the_streaming_function_answers_through_it(tmp_path: Path) -> None:
    async with (
        RuntimeApi() as api,
        _running(api, tmp_path, "functions.stream.handler.app", MINICHAT_CURSOR_SECRET="s"),
    ):
        refused = await api.invoke(
            an_event("POST", f"/chats/{'0' * 8}-0000-4000-8000-{'0' * 12}/messages:stream", body={})
        )
        assert refused.head["statusCode"] == 401
        assert refused.head["headers"]["content-type"] == "application/problem+json"
        assert json.loads(await refused.rest())["code"] == "unauthenticated"


async def test_an_answer_whose_connection_breaks_is_made_before_its_invocation_ends(
    store: Store, tmp_path: Path
) -> None:
    """With the end of an invocation its process is frozen, or gone: whoever still answered in it would be dead."""
    issuer, rules = Issuer(tmp_path), Rules(Settings(), first_policy(Settings()))
    caller = Caller(TenantId(as_uuid("acme")), UserId(as_uuid("ann")))
    chat_id = chats.create(Call(caller, now(), new_id), chats.NewChat(), rules).chat_id
    request_id = RequestId(str(uuid4()))
    with a_scripted_provider(tmp_path) as provider:
        environment = {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "MINICHAT_STORE__ENDPOINT": str(store.endpoint),
            "MINICHAT_STORE__CONVERSATION_TABLE": store.conversation_table,
            "MINICHAT_STORE__OUTBOX_TABLE": store.outbox_table,
            "MINICHAT_AUTH__JWKS": str(issuer.jwks_file),
            "MINICHAT_CURSOR_SECRET": "secret",
            "MINICHAT_PROVIDERS": json.dumps({"openai": {"base_url": provider, "allow_insecure": True}}),
        }
        token = issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=timedelta(hours=1))
        body = {"content": "[[words:40]][[delay:50]]", "request_id": request_id}
        event = an_event("POST", f"/chats/{chat_id}/messages:stream", token, body)
        async with RuntimeApi() as api, _running(api, tmp_path, "functions.stream.handler.app", **environment):
            assert (await api.invoke(event, breaks=True)).head["statusCode"] == 200
            async with asyncio.timeout(30):
                while (await asyncio.to_thread(_turn, caller, chat_id, request_id)).state is TurnState.RUNNING:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    turn = _turn(caller, chat_id, request_id)
    answer = messages.read(turn.tenant_id, chat_id, turn.assistant_message_id)
    assert answer is not None
    assert (turn.state, answer.content.split()[-1]) == (TurnState.COMPLETED, "word40")


def _turn(caller: Caller, chat_id: ChatId, request_id: RequestId) -> Turn:
    _, found = turns.read(caller.tenant_id, chat_id, request_id)
    assert found is not None
    return found


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stream_runtime", LAYER / "stream_runtime.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_scope_keeps_repeated_headers_and_parameters() -> None:
    event = _event("/x")
    event["multiValueHeaders"]["Accept"] = ["a", "b"]
    event["multiValueQueryStringParameters"] = {"$filter": ["role eq 'user'"], "n": ["1", "2"]}
    scope = _module().scope_of(event, deadline_ms=5, request_id="r")
    assert scope["query_string"] == b"%24filter=role+eq+%27user%27&n=1&n=2"
    assert [value for name, value in scope["headers"] if name == b"accept"] == [b"a", b"b"]
    assert scope["state"] == {"deadline_ms": 5, "aws_request_id": "r"}
