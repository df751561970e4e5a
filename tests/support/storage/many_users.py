"""Users with limits of their own, as many as one wants, and what a send costs beside them."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from minichat.domain.identity import RequestId, UserId
from minichat.domain.policy_layers import UserLayer
from minichat.services import chats
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.storage import keys
from minichat.storage.items import ConversationItem, table
from tests.support.domain.builders import a_call, a_caller, some_limits
from tests.support.storage.faults import counted_calls, hook
from tests.support.storage.read_units import counted_reads

LAYER = UserLayer(limits=some_limits(10**12))
BATCH = 25
"""Items of one BatchWriteItem (AWS limit)."""


@dataclass(frozen=True)
class SendCost:
    """Of one send: read units of each read, write units, calls in order."""

    read_units: tuple[int, ...]
    write_units: float
    calls: tuple[str, ...]


def fill(first: int, last: int) -> None:
    """Gives limits to users of the usual tenant, whose names are these numbers: what publishing leaves to be read."""
    packed = {"B": zlib.compress(LAYER.model_dump_json(exclude_unset=True).encode(), 9)}
    name, client = ConversationItem.Meta.table_name, table().connection
    for start in range(first, last, BATCH):
        puts = []
        for number in range(start, min(start + BATCH, last)):
            pk, sk = keys.user_policy(a_caller().tenant_id, UserId(f"user-{number}"))
            item = {"pk": {"S": pk}, "sk": {"S": sk}, "version": {"N": "1"}, "document": packed}
            puts.append({"PutRequest": {"Item": item}})
        client.dispatch("BatchWriteItem", {"RequestItems": {name: puts}})


def cost_of_a_send(rules: Rules) -> SendCost:
    """What one send costs in a new chat."""
    chat = chats.create(a_call(), chats.NewChat(), rules)
    with counted_reads() as reads, counted_calls() as calls, _written() as units:
        running = send(a_call(), SendMessage(chat.chat_id, "x" * 600, RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    return SendCost(tuple(sorted(reads.units)), sum(units), tuple(sorted(calls)))


@contextmanager
def _written() -> Iterator[list[float]]:
    """The write units of the transactions inside, as the engine bills them."""
    units: list[float] = []

    def billed(parsed: dict[str, Any], **_: Any) -> None:
        units.extend(float(table["CapacityUnits"]) for table in parsed.get("ConsumedCapacity", []))

    with hook("after-call.dynamodb.TransactWriteItems", billed):
        yield units
