"""The lease on a running turn: whose its answer is, its signs of life, and what asks its teller to stop.

Without a sign of life for a while a turn counts as dead (turns-and-quota 8). Of two tellers one is refused: the turn's
must be who it was when the turn was read.
"""

import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat.domain.errors import GenerationInProgress
from minichat.domain.identity import Call
from minichat.domain.turn import Turn, TurnState
from minichat.storage import keys
from minichat.storage.conditions import all_of, any_of, is_still
from minichat.storage.items import OutboxItem, TurnItem, batch_get
from minichat.storage.transact import Put, Update, Write, try_commit, update_one

LATE_SECONDS = 5
"""A third of the time after which a turn that has not begun counts as dead: a commit that took longer looks first."""


@dataclass(frozen=True, slots=True)
class TurnProgress:
    """What the teller of a running turn learned: since when it is asked to stop, if it is."""

    cancel_requested_at: datetime | None


class Beginning:
    """The commit that begins a turn, as long as it may take. A commit so slow that its process may count as dead renews
    the lease first: whoever goes on to call the provider is the turn's one teller.
    """

    def __init__(self, call: Call, turn: Turn) -> None:
        self._call, self._turn, self._began = call, turn, time.monotonic()

    def took_effect(self) -> bool:
        """Whether the turn began, and is still this process's; asked by renewing it."""
        now = self._call.now + timedelta(seconds=time.monotonic() - self._began)
        return progress(replace(self._call, now=now), self._turn, provider_called=False) is not None

    def check(self) -> None:
        """Comes after the commit.

        Raises GenerationInProgress when that took so long that another goes on with the turn.
        """
        if time.monotonic() - self._began > LATE_SECONDS and not self.took_effect():
            raise GenerationInProgress(self._turn.request_id)


def take_over(call: Call, dead: Turn) -> Turn | None:
    """The turn, whose answer this process makes now in the place of one that died before it called the provider.

    None when the turn is not as it was seen any more: alive, over, or taken over by another.
    """
    teller = call.new_id(call.now)
    same_teller = is_still(TurnItem.teller, dead.teller)
    # A sign of life since, and it is not dead.
    still_silent = is_still(TurnItem.last_progress_at, dead.last_progress_at)
    # Once its provider was asked, part of a turn may have been told.
    never_called = TurnItem.provider_request_started_at.does_not_exist()
    not_cancelled = TurnItem.cancel_requested_at.does_not_exist()
    as_seen = all_of(same_teller, still_silent, never_called, not_cancelled)
    # Only the answer to this write was lost.
    is_ours = TurnItem.teller == teller
    item = TurnItem(*keys.turn(dead.tenant_id, dead.chat_id, dead.request_id))
    actions = [TurnItem.teller.set(teller), TurnItem.last_progress_at.set(call.now)]
    if not update_one(item, actions, all_of(_runs(), any_of(as_seen, is_ours)), op="take_over_turn"):
        return None
    return replace(dead, teller=teller, last_progress_at=call.now)


def look(turn: Turn) -> TurnProgress | None:
    """What became of a running turn since; None when it has ended and its teller must stop.

    Raises ServiceUnavailable.
    """
    key = keys.turn(turn.tenant_id, turn.chat_id, turn.request_id)
    raw = batch_get([key]).get(key)
    now = None if raw is None else TurnItem.from_raw_data(dict(raw))
    if now is None or now.state != TurnState.RUNNING.value or now.teller != turn.teller:
        return None
    return TurnProgress(now.cancel_requested_at)


def progress(call: Call, turn: Turn, *, provider_called: bool) -> TurnProgress | None:
    """Renews the lease of a running turn: the sign of life without which it counts as dead. Returns as `look` does."""
    item = TurnItem(*keys.turn(turn.tenant_id, turn.chat_id, turn.request_id))
    actions: list[Action] = [TurnItem.last_progress_at.set(call.now)]
    if provider_called:
        called = TurnItem.provider_request_started_at
        actions.append(called.set(called | call.now))
    if not update_one(item, actions, told_by(turn), op="renew_turn"):
        return None
    return TurnProgress(item.cancel_requested_at)


def request_cancel(call: Call, turn: Turn, event: OutboxItem) -> bool:
    """Asks a running turn to stop; False when it has ended, or was asked before."""
    item = TurnItem(*keys.turn(turn.tenant_id, turn.chat_id, turn.request_id))
    # Of two who ask at once the first has the event.
    unasked = TurnItem.cancel_requested_at.does_not_exist()
    writes: list[Write] = [
        Update("turn", item, [TurnItem.cancel_requested_at.set(call.now)], all_of(_runs(), unasked)),
        Put(f"event {event.sk}", event),
    ]
    return try_commit(writes, token=call.new_id(call.now), op="cancel_turn")


def told_by(turn: Turn) -> Condition:
    """The turn runs, and nobody has taken it over since it was read."""
    same_teller = is_still(TurnItem.teller, turn.teller)
    return all_of(_runs(), same_teller)


def _runs() -> Condition:
    """Nobody has ended the turn."""
    condition: Condition = TurnItem.state == TurnState.RUNNING.value
    return condition
