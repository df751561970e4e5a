"""The end of a turn, in one transaction: of two finalizers the second finds the turn no longer running."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from pynamodb.expressions.update import Action

from minichat.domain.identity import Call
from minichat.domain.message import Message
from minichat.domain.settlement import Ending, Settlement
from minichat.domain.spent import Spent
from minichat.domain.turn import ToolCalls, Turn
from minichat.domain.usage import Usage
from minichat.storage import keys, leases, messages, quota, sizes, tenant_rates
from minichat.storage.conditions import all_of
from minichat.storage.items import ChatItem, OutboxItem, TurnItem
from minichat.storage.transact import Put, Update, Write, try_commit


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a turn: the answer's message if any, the events it causes, and the last part of its stream.

    Repetitions are made of the same values and have the same `token`.
    """

    token: str
    ending: Ending
    settlement: Settlement
    answer: Message | None
    events: tuple[OutboxItem, ...]
    parts: tuple[Put, ...] = ()
    events_stored: int = 0
    terminal_number: int | None = None
    stale_since: datetime | None = None
    spent: Spent = field(default_factory=Spent)


def least_units(call: Call, turn: Turn, end: Finish) -> int:
    """The least write units of this end: what its writes tell, and the entry of the index of running turns."""
    return sizes.least_units(_writes(call, turn, end, 0)) + 1


def finish(call: Call, turn: Turn, end: Finish, *, retention_days: int) -> bool:
    """Moves a running turn to its end, settles it, and publishes its events; False when another finalizer won.

    With `stale_since` the turn is ended as dead: a sign of life after that instant counts as another's win.
    """
    return try_commit(_writes(call, turn, end, retention_days), token=end.token, op="finish_turn")


def _writes(call: Call, turn: Turn, end: Finish, retention_days: int) -> list[Write]:
    item = TurnItem(*keys.turn(turn.tenant_id, turn.chat_id, turn.request_id))
    head = ChatItem(*keys.chat(turn.tenant_id, turn.chat_id))
    free: list[Action] = [ChatItem.running_request_id.remove()]
    answer: list[Put] = []
    if end.answer is not None:
        free += [ChatItem.message_count.add(1), ChatItem.last_message_at.set(end.answer.created_at)]
        answer = messages.put(turn.tenant_id, turn.chat_id, end.answer)
    # The one condition that makes a finalizer the only one.
    running = [leases.told_by(turn)]
    if end.stale_since is not None:
        still_silent = TurnItem.last_progress_at <= end.stale_since
        running.append(still_silent)
    return [
        Update("turn", item, _ending(call, end), all_of(*running)),
        # While a turn runs, the head names it: only this transaction removes the name.
        Update("chat", head, free, ChatItem.running_request_id == turn.request_id),
        *answer,
        *end.parts,
        quota.settle(turn, end.settlement, end.ending, retention_days=retention_days),
        *tenant_rates.ended(turn),
        *(Put(f"event {event.sk}", event) for event in end.events),
    ]


def _ending(call: Call, end: Finish) -> list[Action]:
    ending = end.ending
    actions: list[Action] = [
        TurnItem.state.set(ending.state.value),
        TurnItem.completed_at.set(call.now),
        TurnItem.committed_credits_micro.set(end.settlement.committed_micro),
        TurnItem.settlement_method.set(end.settlement.method),
        # Out of the index of running turns.
        TurnItem.running_shard.remove(),
        TurnItem.spent.set(end.spent),
    ]
    if end.answer is not None:
        actions.append(TurnItem.messages.set(2))
    optional: Iterable[tuple[Any, Any]] = [
        (TurnItem.error_code, ending.error_code),
        (TurnItem.error_detail, ending.error_detail),
        (TurnItem.cut, ending.cut),
        (TurnItem.cites, bool(ending.citations)),
        (TurnItem.provider_response_id, ending.provider_response_id),
        (TurnItem.events_stored, end.events_stored),
        (TurnItem.terminal_number, end.terminal_number),
        *((getattr(TurnItem, f"usage_{f.name}"), getattr(ending.usage, f.name)) for f in fields(Usage)),
        *((getattr(TurnItem, f"tool_calls_{f.name}"), getattr(ending.tool_calls, f.name)) for f in fields(ToolCalls)),
    ]
    return actions + [attribute.set(value) for attribute, value in optional if value]
