"""Every built function under Lambda's runtime interface, invoked as its event source invokes it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from minichat.local import stack
from minichat.local.issuer import Issuer
from minichat.settings import Store
from tests.integration.emulator import SAM, Built, Emulator, built
from tests.integration.runtime_api import RuntimeApi, Streamed
from tests.integration.test_functions import an_event

pytestmark = pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")

DELTAS = 200
PAUSE_SECONDS = 0.05


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Everything that is deployed, built once."""
    return built(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The scripted provider's address."""
    child, url = stack._scripted_provider(tmp_path_factory.mktemp("provider"))
    yield url
    child.stop()


@pytest.fixture
def settings(store: Store, provider: str, tmp_path: Path) -> dict[str, str]:
    """What the template would set, for the engine of this machine; TOKEN is a caller's."""
    issuer = Issuer(tmp_path)
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "MINICHAT_STORE__ENDPOINT": str(store.endpoint),
        "MINICHAT_STORE__CONVERSATION_TABLE": store.conversation_table,
        "MINICHAT_STORE__OUTBOX_TABLE": store.outbox_table,
        "MINICHAT_AUTH__JWKS": str(issuer.jwks_file),
        "MINICHAT_CURSOR_SECRET": "secret",
        "MINICHAT_PROVIDERS": json.dumps({"openai": {"base_url": provider, "allow_insecure": True}}),
        "TOKEN": issuer.token("acme", "ann", now=datetime.now(UTC), lifetime=timedelta(hours=1)),
    }


def _event_for(function: str, token: str) -> dict[str, Any]:
    """An event as the function's source sends it. A new function needs one here."""
    events = {
        "ApiFunction": an_event("POST", "/chats", token, {"title": "Built"}),
        "StreamFunction": an_event("POST", "/chats/none/messages:stream", token, {"content": "x"}),
        "OrphanWatchdogFunction": {"time": "2026-11-21T12:00:00Z"},
    }
    return events[function]


def test_every_function_answers_from_its_artifacts_alone(artifacts: Built, settings: dict[str, str]) -> None:
    answers = {}
    for function in artifacts.functions:
        with Emulator(artifacts, function, settings) as emulator:
            answers[function] = emulator.invoke(_event_for(function, settings["TOKEN"]))
    created = json.loads(answers["ApiFunction"])
    assert (created["statusCode"], json.loads(created["body"])["title"]) == (201, "Built")
    prelude, _, body = answers["StreamFunction"].partition(b"\0" * 8)
    assert json.loads(prelude)["statusCode"] == 400
    assert json.loads(body)["errors"][0]["field"] == "chat_id"
    assert json.loads(answers["OrphanWatchdogFunction"]) == {"detected": 0, "finalized": 0}


def test_a_warm_function_answers_again_and_refuses_as_it_should(artifacts: Built, settings: dict[str, str]) -> None:
    with Emulator(artifacts, "ApiFunction", settings) as emulator:
        for _ in range(3):
            listed = json.loads(emulator.invoke(an_event("GET", "/models", settings["TOKEN"])))
            assert json.loads(listed["body"])["items"][0]["model_id"] == "gpt-4.1"
        refused = json.loads(emulator.invoke(an_event("GET", "/chats")))
        assert (refused["statusCode"], refused["headers"]["content-type"]) == (
            401,
            "application/problem+json",
        )


def test_a_stream_passes_the_emulator_whole(artifacts: Built, settings: dict[str, str]) -> None:
    chat_id = _new_chat(artifacts, settings)
    with Emulator(artifacts, "StreamFunction", settings) as emulator:
        send = an_event("POST", f"/chats/{chat_id}/messages:stream", settings["TOKEN"], {"content": "[[words:3]]"})
        prelude, _, body = emulator.invoke(send).partition(b"\0" * 8)
    head = json.loads(prelude)
    assert (head["statusCode"], head["headers"]["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert [line[7:] for line in body.decode().splitlines() if line.startswith("event: ")] == [
        "stream_started",
        *["delta"] * 3,
        "done",
    ]


async def test_two_hundred_deltas_leave_the_built_function_one_by_one(
    artifacts: Built, settings: dict[str, str]
) -> None:
    chat_id = await asyncio.to_thread(_new_chat, artifacts, settings)
    content = f"[[words:{DELTAS}]][[delay:{PAUSE_SECONDS * 1000:.0f}]]"
    send = an_event("POST", f"/chats/{chat_id}/messages:stream", settings["TOKEN"], {"content": content})
    async with _running(artifacts, "StreamFunction", settings) as api:
        streamed = await api.invoke(send)
        arrived = [time.monotonic() async for _ in _chunks(streamed)]
    whole = DELTAS * PAUSE_SECONDS
    assert len(arrived) >= 0.75 * DELTAS
    assert arrived[-1] - arrived[0] >= 0.8 * whole
    # Not in bursts: each quarter of the time brings its share.
    for quarter in range(4):
        start = arrived[0] + quarter * (arrived[-1] - arrived[0]) / 4
        assert sum(start <= moment <= start + whole / 4 for moment in arrived) >= DELTAS / 8
    print(f"\n{len(arrived)} chunks over {arrived[-1] - arrived[0]:.1f} s")


async def test_a_stream_ends_in_time_when_its_invocation_does(artifacts: Built, settings: dict[str, str]) -> None:
    chat_id = await asyncio.to_thread(_new_chat, artifacts, settings)
    content = "[[words:9]][[hold:for-ever]]"
    send = an_event("POST", f"/chats/{chat_id}/messages:stream", settings["TOKEN"], {"content": content})
    async with _running(artifacts, "StreamFunction", settings) as api:
        began = time.monotonic()
        streamed = await api.invoke(send, seconds=12)
        body = b"".join([chunk async for chunk in _chunks(streamed)])
        took = time.monotonic() - began
    assert took < 12
    assert body.endswith(b'event: error\ndata: {"code":"cancelled","message":"The turn was cancelled."}\n\n')


async def _chunks(streamed: Streamed) -> AsyncIterator[bytes]:
    while (chunk := await streamed.chunk()) is not None:
        yield chunk


@asynccontextmanager
async def _running(artifacts: Built, function: str, settings: dict[str, str]) -> AsyncIterator[RuntimeApi]:
    """The function's process at a Runtime API that shows chunks as they come."""
    async with RuntimeApi() as api:
        environment = {**artifacts.environment(function, settings), "AWS_LAMBDA_RUNTIME_API": api.host}
        process = await asyncio.create_subprocess_exec(
            *artifacts.command(function),
            cwd=environment["LAMBDA_TASK_ROOT"],
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield api
        finally:
            process.kill()
            await process.wait()


def _new_chat(artifacts: Built, settings: dict[str, str]) -> str:
    with Emulator(artifacts, "ApiFunction", settings) as emulator:
        created = json.loads(emulator.invoke(an_event("POST", "/chats", settings["TOKEN"], {})))
    return str(json.loads(created["body"])["id"])
