"""Lists of turns: the running ones, and those of a chat."""

from collections.abc import Iterator
from datetime import datetime

from minichat.domain.identity import ChatId, TenantId
from minichat.domain.turn import Turn, TurnState
from minichat.storage import keys, turns, unreadable
from minichat.storage.indexes import RunningIndex
from minichat.storage.items import TurnItem, batch_get, between, entries
from minichat.storage.unreadable import Unreadable

PAGE = 100


def running_since(cutoff: datetime, shard: str) -> Iterator[list[Turn | Unreadable]]:
    """The running turns of a shard (`keys.RUNNING_SHARDS`) that began before `cutoff`, the oldest first, in pages.

    The index knows when a turn began; its sign of life is read from the turn itself, which alone decides.
    Raises ServiceUnavailable.
    """
    for where in entries(RunningIndex.Meta.index_name, shard, TurnItem.started_at <= cutoff, page=PAGE):
        found = batch_get(where)
        known = [unreadable.read(found[key], turns.from_raw) for key in where if key in found]
        yield [one for one in known if isinstance(one, Unreadable) or (one and one.state is TurnState.RUNNING)]


def of_chat(tenant_id: TenantId, chat_id: ChatId) -> Iterator[Turn | Unreadable]:
    """Every turn of a chat, deleted ones too.

    Raises ServiceUnavailable.
    """
    found = between(keys.partition(tenant_id, chat_id), keys.TURN_PREFIX, keys.TURN_END, page=PAGE)
    return (turn for raw in found if (turn := unreadable.read(raw, turns.from_raw)) is not None)
