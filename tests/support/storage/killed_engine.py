"""An engine that is killed while it is written to: what of the acknowledged writes is gone when it runs again."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from minichat.local import tables
from minichat.local.engine import Engine
from minichat.settings import Store
from tests.conftest import ROOT

_ONE_TRY = Config(retries={"total_max_attempts": 1}, parameter_validation=False)


@dataclass(frozen=True, slots=True)
class Losses:
    """What of the acknowledged writes is gone, and how long before the kill the first of that was written."""

    acknowledged: int
    lost: list[int]
    halves: int
    """Transactions of which only a part is there."""
    seconds: float
    longest_pause: float
    """Between two acknowledgements, in seconds: how busy the machine was."""

    @property
    def is_tail(self) -> bool:
        """Whether nothing is gone but the last."""
        return self.lost == list(range(self.acknowledged - len(self.lost), self.acknowledged))

    def __str__(self) -> str:
        return f"{self.acknowledged} acknowledged, {len(self.lost)} lost: those of the last {self.seconds:.2f} s"


def client(engine: Engine, service: str = "dynamodb") -> Any:
    """A client that asks once."""
    make: Any = boto3.client
    return make(service, endpoint_url=engine.endpoint, region_name="us-east-1", config=_ONE_TRY)


def killed_while_written(kind: str, state: Path, is_enough: Callable[[float, int], bool]) -> Losses:
    """Writes transactions of two items to a new engine until it is enough (seconds, writes), kills it with SIGKILL,
    starts it again on the same folder, and compares."""
    engine = Engine(ROOT, kind, state / "logs", data=state)
    assert engine.child is not None
    store = Store(endpoint=engine.endpoint)
    table = store.conversation_table
    try:
        tables.create(ROOT, store)
        acknowledged = _written(client(engine), table, is_enough)
    finally:
        os.kill(engine.child.pid, signal.SIGKILL)
        killed = time.monotonic()
        engine.child.stop()
    engine = Engine(ROOT, kind, state / "logs", data=state)
    assert engine.child is not None
    try:
        pages = client(engine).get_paginator("scan").paginate(TableName=table)
        there = {(item["pk"]["S"], item["sk"]["S"]) for page in pages for item in page["Items"]}
    finally:
        engine.child.stop()
    halves = [sum((half, str(n)) in there for half in ("A", "B")) for n in range(len(acknowledged))]
    lost = [number for number, count in enumerate(halves) if count == 0]
    return Losses(
        acknowledged=len(acknowledged),
        lost=lost,
        halves=halves.count(1),
        seconds=killed - acknowledged[lost[0]] if lost else 0.0,
        longest_pause=max(after - before for before, after in pairwise([*acknowledged, killed])),
    )


def _written(dynamodb: Any, table: str, is_enough: Callable[[float, int], bool]) -> list[float]:
    """When each of the writes was acknowledged."""
    acknowledged: list[float] = []
    began = time.monotonic()
    while not is_enough(time.monotonic() - began, len(acknowledged)):
        number = str(len(acknowledged))
        items = [{"pk": {"S": half}, "sk": {"S": number}, "text": {"S": "x" * 500}} for half in ("A", "B")]
        dynamodb.transact_write_items(TransactItems=[{"Put": {"TableName": table, "Item": item}} for item in items])
        acknowledged.append(time.monotonic())
    return acknowledged
