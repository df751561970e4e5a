"""Write units of one text turn, 1 KB in and 2 KB out: what each item and index entry of its transactions costs.

AWS bills a transaction two units per started kilobyte of each item, as it is after the write, and an index one unit per
entry that is put or taken away (moving one is both). DynamoDB Local is asked too; it counts index entries twice, and
equal items of one transaction once, so its figures stand beside ours and not in their place.
"""

import math
import random
import string
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
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.storage.items import connection
from minichat.storage.sizes import size_of
from tests.conftest import ROOT, fresh_tables
from tests.support.domain.builders import a_call, a_model, a_policy, unhurried
from tests.support.storage.faults import hook

RULES = Rules(unhurried(), a_policy(a_model(id="gpt-4.1-mini", preference={"is_default": True})))
PROSE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8") * 2
INDEXES = {"RunningTurn": "running_shard", "ByOwner": "listed_at", "Temporary": "ends_at"}

Item = dict[str, dict[str, Any]]


def main() -> None:
    """Prints the units of send and finalize, of a retry and of the turn's deletion, item by item: for prose, and for
    text that cannot shrink."""
    kind = "dynamodb-local" if (ROOT / ".tools" / "dynamodb-local" / "installed").exists() else "ministack"
    engine = Engine(ROOT, kind, Path(tempfile.mkdtemp()))
    try:
        fresh_tables(engine.endpoint)
        noise = "".join(random.Random(1).choices(string.digits + string.ascii_letters + string.punctuation, k=4096))
        for name, question, answer in (
            ("prose", PROSE[:1024], PROSE[3000:5048]),
            ("text that does not compress", noise[:1024], noise[:2048]),
        ):
            print(f"\nWrite units of a turn, 1 KB in and 2 KB out, {name}")
            chat = chats.create(a_call(), chats.NewChat(), RULES)
            with _billed("send", kind) as send_units:
                running = send(a_call(), SendMessage(chat.chat_id, question, _request_id()), RULES)
            assert isinstance(running, RunningTurn)
            ending = Ending(TurnState.COMPLETED, text=answer, usage=Usage(300, 500), provider_response_id="r" * 53)
            with _billed("finalize", kind) as finalize_units:
                finalize(a_call(), running.turn, ending, RULES.settings)
            print(f"{'together':58}{sum(send_units) + sum(finalize_units):8.0f}")
            with _billed("retry", kind):
                running = mutate.retry(a_call(), chat.chat_id, running.turn.request_id, _request_id(), RULES)
            finalize(a_call(), running.turn, ending, RULES.settings)
            with _billed("delete", kind):
                mutate.delete(a_call(), chat.chat_id, running.turn.request_id, RULES.settings)
    finally:
        if engine.child is not None:
            engine.child.stop()


@contextmanager
def _billed(name: str, kind: str) -> Iterator[list[int]]:
    """Fills the list with the units of each item and index entry that the one transaction inside writes."""
    client = vars(connection())["_client"].blocking
    units: list[int] = []
    written: list[dict[str, Any]] = []
    before: dict[str, Item] = {}
    engines: list[float] = []

    def sent(params: dict[str, Any], **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "INDEXES"
        written[:] = [next(iter(item.values())) for item in params["TransactItems"]]
        before.update({_sort_key(one): _stored(client, one) for one in written})

    def answered(parsed: dict[str, Any], **_: Any) -> None:
        engines.extend(table["CapacityUnits"] for table in parsed.get("ConsumedCapacity", []))

    operation = "dynamodb.TransactWriteItems"
    with hook(f"before-parameter-build.{operation}", sent), hook(f"after-call.{operation}", answered):
        yield units
    for one in written:
        old, new = before[_sort_key(one)], _stored(client, one)
        size = max(size_of(old), size_of(new))
        units.append(2 * math.ceil(size / 1024))
        print(f"  {name:10}{_sort_key(one)[:26]:30}{size:>8} bytes{units[-1]:>12}")
        for index, attribute in INDEXES.items():
            if old.get(attribute) != new.get(attribute):
                units.append((attribute in old) + (attribute in new))
                print(f"  {name:10}index {index:24}{'':14}{units[-1]:>12}")
    print(f"{name:50}{sum(units):>8}   ({kind} says {sum(engines):.0f})")


def _request_id() -> RequestId:
    return RequestId(str(uuid4()))


def _sort_key(operation: dict[str, Any]) -> str:
    return str((operation.get("Item") or operation["Key"])["sk"]["S"])


def _stored(client: Any, operation: dict[str, Any]) -> Item:
    key = {part: (operation.get("Item") or operation["Key"])[part] for part in ("pk", "sk")}
    found: Item = client.get_item(TableName=operation["TableName"], Key=key).get("Item", {})
    return found


if __name__ == "__main__":
    main()
