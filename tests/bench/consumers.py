"""Records per second of the relay and of each consumer, one instance each, beside a loop that only empties a queue."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from minichat.domain.identity import RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.local.engine import Engine
from minichat.local.tables import project_root
from minichat.services import chats
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import current
from minichat.storage import scan
from tests.conftest import fresh_tables
from tests.support.domain.builders import NOW, a_call, a_model, a_policy, unhurried
from tests.support.events.queue_access import QueueAccess, invocation

TURNS = 500
RELAY_BATCH = 100


def main() -> None:
    """Prints a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(project_root(), "ministack", Path(folder))
        try:
            _measure(engine.endpoint, Path(folder) / "audit")
        finally:
            if engine.child is not None:
                engine.child.stop()


def _measure(endpoint: str, sink: Path) -> None:
    store = fresh_tables(endpoint)
    queues = QueueAccess.made_at(endpoint, store.region)
    os.environ.update(queues.environment, MINICHAT_AUDIT__SINK=str(sink), MINICHAT_METRICS_NAMESPACE="")
    current.cache_clear()
    from functions.audit.handler import handler as audit  # noqa: PLC0415  they read their settings when imported
    from functions.outbox_relay.handler import handler as relay  # noqa: PLC0415
    from functions.usage.handler import handler as usage  # noqa: PLC0415
    from minichat.observability import logger  # noqa: PLC0415
    from minichat.storage.items import connect  # noqa: PLC0415

    connect(store)
    logger.setLevel("WARNING")
    images = _events()
    started = time.perf_counter()
    for start in range(0, len(images), RELAY_BATCH):
        relay({"Records": _stream_records(images[start : start + RELAY_BATCH])}, None)
    relayed = len(images) / (time.perf_counter() - started)
    print(f"\nEvents of {TURNS} turns, one instance each, on ministack (records per second)")
    rates = {"audit": _drained(queues, "audit", audit), "usage": _drained(queues, "usage", usage)}
    for _ in range(len(images) // 20):
        queues.client.send_message_batch(
            QueueUrl=queues.settings.urls["usage"],
            Entries=[
                {"Id": str(n), "MessageBody": images[n]["payload"]["S"], "MessageGroupId": "t"} for n in range(10)
            ],
        )
    bare = _drained(queues, "usage", lambda event, _: {"batchItemFailures": []})
    print(f"  {'a loop that only deletes':26}{bare:8.0f}")
    for name, rate in {"relay, batches of 100": relayed, **rates}.items():
        print(f"  {name:26}{rate:8.0f}   {bare / rate:5.2f} x the bare loop's time")


def _events() -> list[Any]:
    rules = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
    chat_id = chats.create(a_call(), chats.NewChat(), rules).chat_id
    for _ in range(TURNS):
        running = send(a_call(), SendMessage(chat_id, "x", RequestId(str(uuid4()))), rules)
        assert isinstance(running, RunningTurn)
        finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5)), rules.settings)
    return list(scan.outbox(NOW - timedelta(days=1), NOW + timedelta(days=1)))


def _stream_records(images: list[Any]) -> list[dict[str, Any]]:
    return [
        {"eventName": "INSERT", "dynamodb": {"NewImage": image, "SequenceNumber": str(number)}}
        for number, image in enumerate(json.loads(json.dumps(images)))
    ]


def _drained(queues: QueueAccess, queue: str, handler: Callable[[Any, Any], Any]) -> float:
    """Messages per second until the queue is empty."""
    url, count, began = queues.settings.urls[queue], 0, time.perf_counter()
    while records := queues.receive(url):
        handler({"Records": records}, invocation())
        queues.client.delete_message_batch(
            QueueUrl=url,
            Entries=[{"Id": str(n), "ReceiptHandle": one["receiptHandle"]} for n, one in enumerate(records)],
        )
        count += len(records)
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
