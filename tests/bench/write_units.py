"""Write units of one text turn, 1 KB in and 2 KB out: what is billed for each transaction, and what each item costs.

A transaction bills two units per started kilobyte of each item, and the indexes one per entry that changes. DynamoDB
Local bills the tables as AWS does, without the indexes: four units more (ByOwner moves, Running comes and goes).
"""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from minichat.domain.identity import RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.local.engine import Engine
from minichat.services import chats
from minichat.services.finalize import finalize
from minichat.services.rules import Rules
from minichat.services.send import Running, SendMessage, send
from minichat.settings import Settings
from minichat.storage.items import connection
from tests.builders import a_call, a_model, a_policy
from tests.conftest import ROOT, fresh_tables

RULES = Rules(Settings(), a_policy(a_model(preference={"is_default": True})))


def main() -> None:
    """Prints the units of send and finalize, item by item, and their sum."""
    kind = "dynamodb-local" if (ROOT / ".tools" / "dynamodb-local" / "installed").exists() else "ministack"
    engine = Engine(ROOT, kind, Path(tempfile.mkdtemp()))
    try:
        fresh_tables(engine.endpoint)
        chat = chats.create(a_call(), chats.NewChat(), RULES)
        print(f"\nWrite units of a turn, 1 KB in and 2 KB out ({kind})")
        with _billed("send") as send_units:
            running = send(a_call(), SendMessage(chat.chat_id, "x" * 1024, RequestId(str(uuid4()))), RULES)
        assert isinstance(running, Running)
        with _billed("finalize") as finalize_units:
            ending = Ending(TurnState.COMPLETED, text="y" * 2048, usage=Usage(300, 500), provider_response_id="r" * 53)
            finalize(a_call(), running.turn, ending, RULES)
        print(f"{'together':58}{sum(send_units) + sum(finalize_units):8.0f}")
    finally:
        if engine.child is not None:
            engine.child.stop()


@contextmanager
def _billed(name: str) -> Iterator[list[float]]:
    units: list[float] = []
    written: list[dict[str, Any]] = []
    events = connection().client.meta.events

    def sent(params: dict[str, Any], **_: Any) -> None:
        written[:] = params["TransactItems"]

    def answered(parsed: dict[str, Any], **_: Any) -> None:
        units.extend(table["CapacityUnits"] for table in parsed.get("ConsumedCapacity", []))

    before, after = "provide-client-params.dynamodb.TransactWriteItems", "after-call.dynamodb.TransactWriteItems"
    events.register(before, sent)
    events.register(after, answered)
    try:
        yield units
    finally:
        events.unregister(before, sent)
        events.unregister(after, answered)
    for item in written:
        (operation,) = item.values()
        sort_key = (operation.get("Item") or operation["Key"])["sk"]["S"]
        print(f"  {name:10}{sort_key[:26]:30}{_cost(operation):>20}")
    print(f"{name + ', as billed':58}{sum(units):8.0f}")


def _cost(operation: dict[str, Any]) -> str:
    if "Item" not in operation:
        return "update"
    size = _size(operation["Item"])
    return f"{size} bytes, {2 * math.ceil(size / 1024)}"


def _size(item: dict[str, dict[str, Any]]) -> int:
    """Bytes of an item: names, and values as DynamoDB counts them."""
    total = 0
    for name, typed in item.items():
        ((kind, value),) = typed.items()
        total += len(name) + {"S": len(str(value).encode()), "N": len(str(value)) // 2 + 2}.get(kind, 1)
    return total


if __name__ == "__main__":
    main()
