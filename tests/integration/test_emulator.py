"""Every built function under Lambda's runtime interface, invoked as its event source invokes it."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from minichat.domain.identity import TenantId
from minichat.events.base import Event
from minichat.local.event_schemas import EXAMPLES
from minichat.moment import new_id
from minichat.storage import usage_ledger
from tests.support.aws.emulator import SAM, Built
from tests.support.aws.runtime_api import RuntimeApi, Streamed
from tests.support.events.queue_access import QueueAccess, reason
from tests.support.http.gateway import proxy_event

pytestmark = pytest.mark.skipif(not SAM.is_dir(), reason="the SAM CLI is not installed (`make tools`)")

DELTAS = 200
PAUSE_SECONDS = 0.05


def _event_for(function: str, token: str) -> dict[str, Any]:
    """An event as the function's source sends it. A new function needs one here."""
    events = {
        "ApiFunction": proxy_event("POST", "/chats", token, {"title": "Built"}),
        "StreamFunction": proxy_event("POST", "/chats/none/messages:stream", token, {"content": "x"}),
        "OrphanWatchdogFunction": {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"},
        "ReconcileFunction": {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"},
        "AdminFunction": at_admin(proxy_event("GET", "/running_turns", token)),
        "AdminQueuesFunction": at_admin(proxy_event("GET", "/dead_letters", token)),
        "OutboxRelayFunction": {"Records": [outbox_record(event) for events in EXAMPLES.values() for event in events]},
        "EventExportFunction": {"Records": [outbox_record(event) for event in EXAMPLES["usage"]]},
        "WebhookFunction": sqs_event("usage"),
        "AuditFunction": sqs_event("audit"),
        "UsageFunction": sqs_event("usage"),
        "AttachmentCleanupFunction": sqs_event("attachment-cleanup"),
        "AttachmentIngestFunction": sqs_event("attachment-ingest"),
        "ChatCleanupFunction": sqs_event("chat-cleanup"),
        "ThreadSummaryFunction": sqs_event("thread-summary"),
    }
    return events[function]


def at_admin(event: dict[str, Any]) -> dict[str, Any]:
    """The event of the same request to the operator's API."""
    return {**event, "path": event["path"].replace("/v1/", "/admin/v1/")}


def outbox_record(event: Event) -> dict[str, Any]:
    """An event as the outbox's stream tells of it."""
    event_id = new_id(datetime.now(UTC))
    image = {
        "pk": f"T#{event.tenant_id}#C#chat",
        "sk": event_id,
        "queue": event.queue,
        "type": event.event_type,
        "dedupe": event.dedupe_key(event_id),
        "payload": event.payload(),
    }
    change = {
        "ApproximateCreationDateTime": 1795250392.0,
        "Keys": {name: {"S": image[name]} for name in ("pk", "sk")},
        "NewImage": {name: {"S": value} for name, value in image.items()},
        "SequenceNumber": event_id,
        "SizeBytes": 700,
        "StreamViewType": "NEW_IMAGE",
    }
    return {"eventID": event_id, "eventName": "INSERT", "eventSource": "aws:dynamodb", "dynamodb": change}


def sqs_event(queue: str) -> dict[str, Any]:
    """The published examples of a queue as messages."""
    return {
        "Records": [
            {
                "messageId": str(number),
                "receiptHandle": f"handle-{number}",
                "body": event.payload(),
                "attributes": {"ApproximateReceiveCount": "1", "MessageGroupId": f"group {number}"},
                "messageAttributes": {"event_id": {"stringValue": new_id(datetime.now(UTC)), "dataType": "String"}},
                "eventSource": "aws:sqs",
            }
            for number, event in enumerate(EXAMPLES[queue])
        ]
    }


def test_every_function_answers_from_its_artifacts_alone(
    artifacts: Built, settings: dict[str, str], queues: QueueAccess, tmp_path: Path
) -> None:
    answers = {}
    for function in artifacts.functions:
        with artifacts.emulator(function, settings) as emulator:
            answers[function] = emulator.invoke(_event_for(function, settings["TOKEN"]))
    created = json.loads(answers["ApiFunction"])
    assert (created["statusCode"], json.loads(created["body"])["title"]) == (201, "Built")
    prelude, _, body = answers["StreamFunction"].partition(b"\0" * 8)
    assert json.loads(prelude)["statusCode"] == 400
    assert json.loads(body)["errors"][0]["field"] == "chat_id"
    for function in ("AdminFunction", "AdminQueuesFunction"):
        refused = json.loads(answers[function])  # by the decision point, which only knows an ordinary user
        assert (refused["statusCode"], json.loads(refused["body"])["code"]) == (403, "forbidden")
    assert set(json.loads(answers["OrphanWatchdogFunction"]).values()) == {0}
    # The example of a usage event is in the ledger by then. Of a turn that is nowhere else nothing can be proved.
    nothing = dict.fromkeys(("quota", "ledger", "left_over", "unreadable", "undecided", "repaired", "idle_chats"), 0)
    assert json.loads(answers["ReconcileFunction"]) == nothing
    consumers = ("Audit", "Usage", "AttachmentCleanup", "AttachmentIngest", "ChatCleanup", "ThreadSummary")
    for function in ("OutboxRelay", "EventExport", "Webhook", *consumers):
        assert json.loads(answers[f"{function}Function"]) == {"batchItemFailures": []}, function
    for queue, events in EXAMPLES.items():
        assert len(queues.all_of(queues.settings.urls[queue])) == len(events)
        # The example of a task is of an erasure that nobody asked for; every other finds its work, or finds it done.
        never = {"there is no such erasure"} if queue == "chat-cleanup" else set()
        assert {reason(one) for one in queues.dead(queue)} == never
    assert len(list((tmp_path / "audit").rglob("*.jsonl"))) == len(EXAMPLES["audit"])
    (total,) = (one for one in usage_ledger.totals(TenantId(EXAMPLES["usage"][0].tenant_id), "0", "9") if one.user_id)
    assert total.used.committed_micro == 3544


def test_a_warm_function_answers_again_and_refuses_as_it_should(artifacts: Built, settings: dict[str, str]) -> None:
    with artifacts.emulator("ApiFunction", settings) as emulator:
        for _ in range(3):
            listed = json.loads(emulator.invoke(proxy_event("GET", "/models", settings["TOKEN"])))
            assert json.loads(listed["body"])["items"][0]["model_id"] == "gpt-4.1"
        refused = json.loads(emulator.invoke(proxy_event("GET", "/chats")))
        assert (refused["statusCode"], refused["headers"]["content-type"]) == (
            401,
            "application/problem+json",
        )


def test_a_stream_passes_the_emulator_whole(artifacts: Built, settings: dict[str, str]) -> None:
    chat_id = _new_chat(artifacts, settings)
    with artifacts.emulator("StreamFunction", settings) as emulator:
        send = proxy_event("POST", f"/chats/{chat_id}/messages:stream", settings["TOKEN"], {"content": "[[words:3]]"})
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
    send = proxy_event("POST", f"/chats/{chat_id}/messages:stream", settings["TOKEN"], {"content": content})
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
    send = proxy_event("POST", f"/chats/{chat_id}/messages:stream", settings["TOKEN"], {"content": content})
    async with _running(artifacts, "StreamFunction", settings) as api:
        # Ten of them are for the end; a cold start on a busy machine needs more than two for the first words.
        streamed = await api.invoke(send, seconds=30)
        began = time.monotonic()  # the runtime's start, however long, is none of the invocation's time
        body = b"".join([chunk async for chunk in _chunks(streamed)])
        took = time.monotonic() - began
    assert took < 30
    last = json.loads(body.rpartition(b"event: done\ndata: ")[2])
    assert last["completion_signal"] == {"kind": "incomplete", "reason": "deadline"}


def test_only_the_function_that_takes_files_in_can_draw(artifacts: Built, settings: dict[str, str]) -> None:
    can = set()
    for function in artifacts.functions:
        run = subprocess.run(
            [artifacts.folder / "python", "-c", "from PIL import Image, WebPImagePlugin"],
            env=artifacts.environment(function, settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0 or "No module named 'PIL'" in run.stderr
        can |= {function} if run.returncode == 0 else set()
    assert can == {"AttachmentIngestFunction"}


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
    with artifacts.emulator("ApiFunction", settings) as emulator:
        created = json.loads(emulator.invoke(proxy_event("POST", "/chats", settings["TOKEN"], {})))
    return str(json.loads(created["body"])["id"])
