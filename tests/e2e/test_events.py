"""Turns through the local stack, whose relay and consumers are killed at random and fail: nothing is lost or doubled.

EVENTS_TURNS=10000 (make events) is the long run.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from minichat.local.process import Child
from minichat.settings import Store
from tests.conftest import ROOT, running_stack
from tests.support.events.consumers import (
    assert_audited_once,
    assert_metered_once,
    dead_letters,
    minichat,
    queues_of,
    serving,
    wait_until_it_agrees,
)
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations

TURNS = int(os.environ.get("EVENTS_TURNS", "200"))
AT_ONCE = 16
FAIL_PERCENT = "5" if TURNS >= 1000 else "30"
"""Of the invocations; in a short run more, so that there are some."""
FUNCTIONS = ("OutboxRelayFunction", "AuditFunction", "UsageFunction")
HIDDEN_SECONDS = 4
"""Visibility timeout of the queues here: what a killed consumer held comes back soon."""
DRAINED_SECONDS = 120 + TURNS / 20


def kill_at_random(stack: Stack, over: threading.Event) -> Counter[str]:
    """The relay and two consumers as processes of their own, each killed and started again at random until it is over.

    How often each was killed.
    """
    kills: Counter[str] = Counter()
    living: dict[str, tuple[float, Child]] = {}
    while not over.wait(0.1):
        for function in FUNCTIONS:
            dies_at, child = living.get(function, (0.0, None))
            if child is None or time.monotonic() > dies_at:
                if child is not None:
                    os.kill(child.pid, signal.SIGKILL)
                    child.stop()  # only waits for it to be gone
                    kills[function] += 1
                started = serving(stack, function, kills[function], "--fail-percent", FAIL_PERCENT)
                living[function] = time.monotonic() + random.uniform(2, 6), started
    for function, (_, child) in living.items():
        os.kill(child.pid, signal.SIGKILL)
        child.stop()
        kills[function] += 1
    return kills


async def load(stack: Stack, turns: int) -> None:
    """Sends so many messages, in chats of ten, some of which fail at the provider."""
    limits = httpx2.Limits(max_connections=None)
    left = iter(range(turns))
    async with httpx2.AsyncClient(base_url=stack.base_url, timeout=PATIENCE, trust_env=False, limits=limits) as client:

        async def one_user(number: int) -> None:
            headers = {"authorization": f"Bearer {stack.token('acme', f'user-{number % 5}')}"}
            chat = ""
            for sent, turn in enumerate(left):
                if sent % 10 == 0:
                    chat = (await client.post("/chats", json={}, headers=headers)).json()["id"]
                body = {"content": "[[fail:500]]" if turn % 9 == 0 else f"[[words:{turn % 7 + 1}]]"}
                path = f"/chats/{chat}/messages:stream"
                async with client.stream("POST", path, json=body, headers=headers) as response:
                    assert response.status_code == 200
                    await response.aread()

        await asyncio.gather(*(one_user(number) for number in range(AT_ONCE)))


@pytest.mark.timeout(3600)
def test_every_turn_is_metered_and_audited_once_whoever_is_killed(tmp_path: Path) -> None:
    with running_stack(tmp_path / "state", "--no-events") as stack:
        client, urls, _ = queues_of(stack)
        for queue in ("audit", "usage"):
            client.set_queue_attributes(QueueUrl=urls[queue], Attributes={"VisibilityTimeout": str(HIDDEN_SECONDS)})
        began = time.monotonic()
        client.send_message(QueueUrl=urls["usage"], MessageBody="poison")
        over = threading.Event()
        with ThreadPoolExecutor(1) as sending:
            done = sending.submit(asyncio.run, load(stack, TURNS))
            done.add_done_callback(lambda _: over.set())
            kills = kill_at_random(stack, over)
            done.result()
        sent_seconds = time.monotonic() - began
        with ExitStack() as healthy:
            for function in FUNCTIONS:
                healthy.callback(serving(stack, function, 10_000).stop)
            agreed = wait_until_it_agrees(stack, DRAINED_SECONDS)
        said = [line for log in (stack.state / "logs").glob("*Function-*.log") for line in log.read_text().splitlines()]
        consumed = Counter(
            (line["queue"], line["result"]) for line in map(_parsed, said) if line.get("message") == "consumed"
        )
        failures = sum("failed on purpose" in line and '"level"' in line for line in said)
        print(
            f"\n{TURNS} turns sent in {sent_seconds:.0f} s, settled after {time.monotonic() - began:.0f} s; "
            f"kill -9: {dict(kills)}; invocations that failed: {failures}\n"
            f"{dict(sorted(consumed.items()))}\n{agreed}"
        )
        assert agreed.endswith(" 0 differences\n")
        assert min(kills.values()) >= 1
        tables = Tables.of(Store(endpoint=stack.about["engine_url"]))
        assert violations(tables) == []
        assert assert_metered_once(tables) == TURNS
        assert_audited_once(tables, stack.state / "audit", TURNS)
        assert dead_letters(stack).keys() == {"usage"}
        letters = json.loads(minichat(stack, "dlq", "show", "usage", "--whole").stdout)
        # Twice, where its consumer was killed between the burial and the end of the delivery.
        assert {letter["body"] for letter in letters} == {"poison"}
        assert all(letter["reason"].startswith("not JSON") for letter in letters)


def _parsed(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:  # the last line of a process that was killed
        return {}
    return parsed if isinstance(parsed, dict) else {}


def test_a_relay_that_stood_still_keeps_the_order_of_each_chat_and_tells_its_lag(tmp_path: Path) -> None:
    with running_stack(tmp_path / "state", "--no-events") as stack:
        asyncio.run(load(stack, 60))
        asleep = time.time()
        relay = serving(stack, "OutboxRelayFunction", 0)
        tables = Tables.of(Store(endpoint=stack.about["engine_url"]))
        client, urls, _ = queues_of(stack)
        order: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while len(order) < 60:
            assert time.monotonic() < deadline
            answer = client.receive_message(
                QueueUrl=urls["audit"], MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=1
            )
            order += [one["MessageAttributes"]["event_id"]["StringValue"] for one in answer.get("Messages", [])]
        relay.stop()
        written = {item["sk"]: item["pk"] for item in tables.outbox}
        for chat in set(written.values()):
            mine = [event_id for event_id in order if written[event_id] == chat]
            assert mine == sorted(mine)
        log = (stack.state / "logs" / "OutboxRelayFunction-0.log").read_text()
        lag = max(int(found) for found in re.findall(r'"outbox_relay_lag_ms":(\d+)', log))
        first = min(int(event_id.replace("-", "")[:12], 16) for event_id in written) / 1000
        assert lag >= (asleep - first) * 1000


def test_a_consumer_that_knows_only_the_published_schemas_comes_to_the_same_sum(tmp_path: Path) -> None:
    with running_stack(tmp_path / "state", "--export-events") as stack:
        asyncio.run(load(stack, 30))
        tables = Tables.of(Store(endpoint=stack.about["engine_url"]))
        export_url = stack.about["environment"]["MINICHAT_EXPORT__QUEUE_URL"]
        told = sum(item["queue"] in ("audit", "usage") for item in tables.outbox)
        wait_for_messages(stack, export_url, told)
        folder = tmp_path / "theirs"
        folder.mkdir()
        for name in ("consumer_example.py", "usage.schema.json"):
            shutil.copy(ROOT / "docs" / "events" / name, folder)
        consumed = subprocess.run(
            [sys.executable, folder / "consumer_example.py", export_url, tmp_path / "totals.sqlite"],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MINICHAT"))},
                "AWS_ENDPOINT_URL_SQS": stack.about["environment"]["MINICHAT_QUEUES__ENDPOINT"],
                "AWS_DEFAULT_REGION": "us-east-1",
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        turns = [turn for chat in tables.chats().values() for turn in chat.turns.values()]
        (tenant,) = {item["pk"].split("#")[1] for item in tables.outbox if item["queue"] == "usage"}
        assert consumed.stdout == f"{tenant} 30 {sum(int(turn['committed']) for turn in turns)}\n", consumed.stderr
        # It took copies: our own consumers got everything, too.
        wait_until_it_agrees(stack, PATIENCE)


def wait_for_messages(stack: Stack, url: str, count: int) -> None:
    client, _, _ = queues_of(stack)
    name = "ApproximateNumberOfMessages"
    deadline = time.monotonic() + PATIENCE
    while int(client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.holds("contract.trace")
def test_one_trace_leads_from_the_request_to_the_audit_record(stack: Stack) -> None:
    trace = uuid4().hex
    with stack.user() as user:
        # One that wants no title: that would be a task, and what it used, with the same trace.
        chat_id = user.new_chat(title="Traced")
        headers = {"traceparent": f"00-{trace}-{trace[:16]}-01"}
        user.http.post(f"/chats/{chat_id}/messages:stream", json={"content": "[[say:hi]]"}, headers=headers)
        deadline = time.monotonic() + PATIENCE
        while True:
            told = minichat(stack, "events", "tail", trace).stdout.splitlines()
            if sum("consumed" in line for line in told) == 2:
                break
            assert time.monotonic() < deadline, told
        kinds = [line.split()[1] for line in told]
        assert Counter(kinds) == {"request": 1, "relayed": 2, "consumed": 2}
        assert kinds.index("consumed") > kinds.index("relayed")
        records = [json.loads(file.read_text()) for file in (stack.state / "audit").rglob("*.jsonl")]
        assert [record["event_type"] for record in records if record.get("trace_id") == trace] == ["turn_completed"]
