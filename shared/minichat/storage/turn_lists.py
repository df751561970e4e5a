"""Turns found by what they have in common."""

from collections.abc import Iterator
from datetime import datetime

from minichat.domain.identity import ChatId, TenantId
from minichat.domain.turn import Turn, TurnState
from minichat.storage import keys, turns
from minichat.storage.items import Running, TurnItem, batch_get, between, query
from minichat.storage.keys import Key


def running_since(cutoff: datetime, *, limit: int) -> list[Turn]:
    """Up to `limit` running turns that began before `cutoff`, the oldest sign of life first.

    The index knows when a turn began; its sign of life is read from the turn itself, which alone decides.
    """
    found: list[Key] = []
    for shard in keys.RUNNING_SHARDS:
        entries, _ = query(shard, TurnItem.started_at <= cutoff, limit=limit, index=Running.Meta.index_name)
        found += [Key(entry["pk"]["S"], entry["sk"]["S"]) for entry in entries]
    known = [turns.from_raw(raw) for raw in batch_get(found).values()]
    alive = [turn for turn in known if turn is not None and turn.state is TurnState.RUNNING]
    return sorted(alive, key=lambda turn: turn.last_progress_at)[:limit]


def of_chat(tenant_id: TenantId, chat_id: ChatId) -> Iterator[Turn]:
    """Every turn of a chat, deleted ones too."""
    found = between(keys.partition(tenant_id, chat_id), keys.TURN_PREFIX, keys.TURN_END, page=100)
    return (turn for raw in found if (turn := turns.from_raw(raw)) is not None)
