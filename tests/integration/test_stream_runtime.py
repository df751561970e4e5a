"""The streaming runtime against the Runtime API: chunks leave one by one, and every failure ends its invocation."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from stream_runtime_request import scope_of

from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId, UserId
from minichat.domain.turn import Turn, TurnState
from minichat.local.issuer import Issuer, as_uuid
from minichat.moment import new_id, now
from minichat.services import chats
from minichat.services.policy_in_force import Rules, first_policy
from minichat.settings import Settings, Store
from minichat.storage import messages, turns
from tests.support.aws.deliveries import Drops, Holds
from tests.support.aws.runtime_api import RuntimeApi
from tests.support.aws.streaming import a_gate, an_event, running, told, variables
from tests.support.http.gateway import proxy_event
from tests.support.providers.files import a_scripted_provider

BODY = b'{"a": "\\u00fc"}'
"""Of every event."""


async def test_every_chunk_leaves_before_the_next_is_made(tmp_path: Path) -> None:
    async with RuntimeApi() as api, running(api, tmp_path), a_gate() as (port, comers):
        streamed = await api.invoke(an_event("/gated", x_gate=port))
        assert streamed.head == {
            "statusCode": 200,
            "headers": {"content-type": "text/event-stream"},
            "cookies": ["a=1", "b=2"],
        }
        _, gate = await comers.get()
        for number in range(3):
            # The app is waiting at its gate: what has arrived was sent before it knew of the next.
            assert await streamed.chunk() == b"data: %d\n\n" % number
            gate.write(b"\n")
        assert await streamed.chunk() is None
        assert streamed.trailers == {}


async def test_a_reader_has_the_end_while_the_app_still_works_and_its_invocation_goes_on(tmp_path: Path) -> None:
    """An answer in the background is told at once, and its process must not be frozen before it is made."""
    async with RuntimeApi() as api, running(api, tmp_path), a_gate() as (port, comers):
        streamed = await api.invoke(an_event("/after", x_gate=port))
        assert await streamed.rest() == b"told"
        _, gate = await comers.get()
        following = asyncio.create_task(api.invoke(an_event("/empty")))
        assert (await asyncio.wait({following}, timeout=0.5))[0] == set(), "the next one waits for the app"
        gate.write(b"\n")
        assert await (await following).rest() == b"\n"


async def test_an_app_waits_for_whoever_reads_slowly(tmp_path: Path) -> None:
    read_on = asyncio.Event()
    async with RuntimeApi() as api, running(api, tmp_path), a_gate() as (port, comers):
        api.at_response.append(Holds(read_on, after=1))
        # More than the buffers of both ends take, and less than a response may have.
        streamed = await api.invoke(an_event("/long", x_gate=port, x_chunks="95"))
        reader, _ = await comers.get()
        assert await reader.readline() == b"stalled\n"
        read_on.set()
        assert len(await streamed.rest()) == 95 * 65_536
        assert (await reader.read()).endswith(b"over\n")


async def test_the_request_reaches_the_app_as_it_was(tmp_path: Path) -> None:
    async with RuntimeApi() as api, running(api, tmp_path):
        plain = await (await api.invoke(an_event("/echo", x_name="one"))).rest()
        assert plain == b"POST q=1+2 one " + BODY
        encoded = an_event("/echo", x_name="two") | {
            "body": base64.b64encode(b"\xff\x00").decode(),
            "isBase64Encoded": True,
        }
        assert await (await api.invoke(encoded)).rest() == b"POST q=1+2 two \xff\x00"


async def test_the_app_is_told_what_the_invocation_says_and_nothing_of_the_one_before(tmp_path: Path) -> None:
    async with RuntimeApi() as api, running(api, tmp_path):
        first = await told(api, an_event("/told"), seconds=60, headers={"Lambda-Runtime-Trace-Id": "Root=1-2-3"})
        assert first["state"].keys() == {"aws_request_id", "deadline_ms", "gateway_path"}
        assert first["trace"] == "Root=1-2-3"
        second = await told(api, an_event("/told"), seconds=None)
        assert (second["state"]["aws_request_id"], second["trace"]) == ("request-2", None)
        assert "deadline_ms" not in second["state"]
        third = await told(api, an_event("/told"), seconds=None, headers={"Lambda-Runtime-Deadline-Ms": "soon"})
        assert third["state"] == second["state"] | {"aws_request_id": "request-3"}


async def test_a_path_is_decoded_as_a_server_decodes_it(tmp_path: Path) -> None:
    async with RuntimeApi() as api, running(api, tmp_path):
        event = an_event("/told") | {"path": "/mini-chat/v1/chats/%C3%BC/x%3Ay/told"}
        assert (await told(api, event))["path"] == "/mini-chat/v1/chats/ü/x:y/told"


async def test_an_answer_names_the_invocation_when_the_runtime_api_does(tmp_path: Path) -> None:
    named = {"Lambda-Runtime-Invocation-Id": "this one"}
    async with RuntimeApi() as api, running(api, tmp_path):
        for event in (an_event("/empty"), b"no event"):
            assert (await api.invoke(event, headers=named)).headers["lambda-runtime-invocation-id"] == "this one"
            assert "lambda-runtime-invocation-id" not in (await api.invoke(event)).headers


async def test_an_empty_body_has_a_byte(tmp_path: Path) -> None:
    async with RuntimeApi() as api, running(api, tmp_path):
        assert await (await api.invoke(an_event("/empty"))).rest() == b"\n"


@pytest.mark.parametrize("path", ["/early", "/silent", "/cancelled", "/bodiless", "/malformed"])
async def test_a_failure_before_the_start_is_a_problem_and_the_next_invocation_works(tmp_path: Path, path: str) -> None:
    async with RuntimeApi() as api, running(api, tmp_path):
        failed = await api.invoke(an_event(path))
        assert failed.head["statusCode"] == 500
        assert json.loads(await failed.rest())["code"] == "internal_error"
        assert await (await api.invoke(an_event("/empty"))).rest() == b"\n"


@pytest.mark.parametrize(
    ("path", "body", "kind", "message"),
    [
        ("/late", b"data: 0\n\n", "ValueError", "after the start"),
        ("/twice", b"", "RuntimeError", "the app sent http.response.start twice"),
        # Longer than the Runtime API takes, in words and in calls.
        ("/deep", b"", "?berraschung", "message message"),
    ],
)
async def test_a_failure_after_the_start_is_told_in_the_trailers(
    tmp_path: Path, path: str, body: bytes, kind: str, message: str
) -> None:
    async with RuntimeApi() as api, running(api, tmp_path):
        failed = await api.invoke(an_event(path))
        assert await failed.rest() == body
        assert failed.trailers["lambda-runtime-function-error-type"] == kind
        error = json.loads(base64.b64decode(failed.trailers["lambda-runtime-function-error-body"]))
        assert error["errorMessage"].startswith(message)
        assert error["stackTrace"]
        assert await (await api.invoke(an_event("/empty"))).rest() == b"\n"


async def test_an_app_that_cannot_be_imported_is_told_to_lambda(tmp_path: Path) -> None:
    async with RuntimeApi() as api, running(api, tmp_path, "the_app.missing") as runtime:
        assert await runtime.ended() == 1
        assert [error["errorType"] for error in api.init_errors] == ["AttributeError"]


async def test_a_snapshot_is_taken_before_the_first_invocation(tmp_path: Path) -> None:
    async with (
        RuntimeApi() as api,
        running(api, tmp_path, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start"),
    ):
        await (await api.invoke(an_event("/empty"))).rest()
        assert api.restores == 1


async def test_the_streaming_function_answers_through_it(tmp_path: Path) -> None:
    async with (
        RuntimeApi() as api,
        running(api, tmp_path, "functions.stream.handler.app", MINICHAT_CURSOR_SECRET="s"),
    ):
        refused = await api.invoke(
            proxy_event("POST", f"/chats/{'0' * 8}-0000-4000-8000-{'0' * 12}/messages:stream", body={})
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
        environment = variables(store, issuer, provider)
        token = issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=timedelta(hours=1))
        body = {"content": "[[words:40]][[delay:50]]", "request_id": request_id}
        event = proxy_event("POST", f"/chats/{chat_id}/messages:stream", token, body)
        async with RuntimeApi() as api, running(api, tmp_path, "functions.stream.handler.app", **environment):
            api.at_response.append(Drops(after=1))
            assert (await api.invoke(event)).head["statusCode"] == 200
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


def _scope(event: dict[str, Any]) -> dict[str, Any]:
    return scope_of(event, deadline_ms=5, request_id="r")


def test_the_scope_keeps_repeated_headers_and_parameters() -> None:
    event = an_event("/x")
    event["multiValueHeaders"]["Accept"] = ["a", "b"]
    event["multiValueQueryStringParameters"] = {"$filter": ["role eq 'user'"], "n": ["1", "2"]}
    scope = _scope(event)
    assert scope["query_string"] == b"%24filter=role+eq+%27user%27&n=1&n=2"
    assert [value for name, value in scope["headers"] if name == b"accept"] == [b"a", b"b"]
    assert scope["state"] == {"deadline_ms": 5, "aws_request_id": "r", "gateway_path": "/dev/mini-chat/v1/x"}


MINIMAL = {"httpMethod": "GET", "path": "/x"}
OPTIONAL = (
    "headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters", "pathParameters",
    "stageVariables", "requestContext", "body", "isBase64Encoded",
)  # fmt: skip


@pytest.mark.parametrize("more", [{}, dict.fromkeys(OPTIONAL), {"requestContext": {"identity": None}}])
def test_what_is_optional_in_an_event_may_be_missing_or_null(more: dict[str, Any]) -> None:
    scope = _scope(MINIMAL | more)
    assert (scope["headers"], scope["query_string"], scope["client"]) == ([], b"", ("", 0))


def test_headers_and_parameters_that_come_once_are_enough() -> None:
    scope = _scope(MINIMAL | {"headers": {"A": "b", "None": None}, "queryStringParameters": {"c": "d"}})
    assert (scope["headers"], scope["query_string"]) == ([(b"a", b"b")], b"c=d")


def test_a_header_of_any_script_reaches_the_app_as_utf8() -> None:
    scope = _scope(MINIMAL | {"multiValueHeaders": {"X-€": ["Grüße, 世界", "half \ud800"]}})
    assert scope["headers"] == [("x-€".encode(), "Grüße, 世界".encode()), ("x-€".encode(), b"half ?")]
