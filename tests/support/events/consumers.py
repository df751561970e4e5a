"""Relay and consumers of a stack as processes of a test's own, and what must have come of it however they fared."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from minichat.local.process import Child
from tests.support.http.client import Stack
from tests.support.storage.invariants import Tables


def serving(
    stack: Stack, function: str, number: int, *arguments: str, environment: Mapping[str, str] | None = None
) -> Child:
    """A process that serves the event sources of one function."""
    command = [sys.executable, "-m", "minichat.local.sources", function, "--state", str(stack.state), *arguments]
    return Child(f"sources {function}-{number}", command, stack.state / "logs", environment)


def queues_of(stack: Stack) -> tuple[Any, dict[str, str], dict[str, str]]:
    """A client that is not the product's, and the URLs of the queues and of their dead letters."""
    said = stack.about["environment"]
    client = boto3.client("sqs", endpoint_url=said["MINICHAT_QUEUES__ENDPOINT"], region_name="us-east-1")
    return client, json.loads(said["MINICHAT_QUEUES__URLS"]), json.loads(said["MINICHAT_QUEUES__DEAD_LETTERS"])


def minichat(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minichat.cli.main", *arguments, "--state", str(stack.state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def dead_letters(stack: Stack) -> dict[str, int]:
    client, _, dead = queues_of(stack)
    name = "ApproximateNumberOfMessages"
    depths = {
        queue: int(client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])
        for queue, url in dead.items()
    }
    return {queue: depth for queue, depth in depths.items() if depth}


def wait_until_it_agrees(stack: Stack, seconds: float) -> str:
    """Reconciliation until it finds no difference any more, for so many seconds at most; what it said last."""
    deadline = time.monotonic() + seconds
    while True:
        said = minichat(stack, "reconcile", "--settled-seconds", "0")
        if said.returncode == 0 or time.monotonic() > deadline:
            return said.stdout + said.stderr


def assert_metered_once(tables: Tables) -> int:
    """One ledger entry for each turn, of what it was charged; totals of the day are their sums. How many turns."""
    charged = {turn["id"]: int(turn["committed"]) for chat in tables.chats().values() for turn in chat.turns.values()}
    entries = [item for item in tables.conversations if "#L#" in item["pk"]]
    assert sorted((entry["turn"], int(entry["micro"])) for entry in entries) == sorted(charged.items())
    totals = [item for item in tables.conversations if item["pk"].endswith("#USAGE")]
    for of_users in (True, False):
        mine = [total for total in totals if ("#" in total["sk"]) == of_users]
        assert sum(int(total["turns"]) for total in mine) == len(charged)
        assert sum(int(total.get("micro", 0)) for total in mine) == sum(charged.values())
    return len(charged)


def assert_audited_once(tables: Tables, sink: Path, turns: int) -> None:
    """One record for each event that went to the audit queue, and no other; all turns have ended."""
    records = [json.loads(line) for file in sink.rglob("*.jsonl") for line in file.read_text().splitlines()]
    events = [item["sk"] for item in tables.outbox if item["queue"] == "audit"]
    ends = [item for item in tables.outbox if item["type"] in ("turn_completed", "turn_failed")]
    assert sorted(record["event_id"] for record in records) == sorted(events)
    assert len(ends) == turns
