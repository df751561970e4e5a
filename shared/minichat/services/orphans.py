"""Turns whose process died: found by whoever meets them, or by the watchdog, and ended by the same conditional write.

                started        last sign of life          cutoff = now - timeout        now
    alive       |--------------------------------------------|------x----------------------|
    dead        |--------x-----------------------------------|-----------------------------|

A zombie that wakes up after its turn was ended fails the condition of its own finalization and does nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from minichat.domain.chat import Chat, visible
from minichat.domain.identity import Call, Caller, ChatId, NewId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn, TurnState, is_orphan
from minichat.services.finalize import finalize
from minichat.services.rules import Rules
from minichat.storage import turns


@dataclass(frozen=True, slots=True)
class Swept:
    """What one run of the watchdog did."""

    detected: int
    finalized: int


def ended_as_orphan(call: Call, turn: Turn, rules: Rules) -> bool:
    """Whether the turn is dead, in which case it has an end now: this one, or that of another who noticed too.

    It is charged by estimate when its provider was called, and not at all when it was not (turns-and-quota 6, 8).
    """
    cutoff = _cutoff(call.now, rules)
    if not is_orphan(turn, cutoff):
        return False
    called = turn.provider_request_started_at is not None
    ending = Ending(TurnState.FAILED, "orphan_timeout", provider_called=called)
    finalize(call, turn, ending, rules, stale_since=cutoff)
    return True


def looked_at(call: Call, chat_id: ChatId, request_id: RequestId, rules: Rules) -> tuple[Chat, Turn | None]:
    """A chat of the caller and one of its turns, deleted or not; a turn that is found dead has ended now.

    Raises ChatNotFound.
    """
    found, turn = turns.read(call.caller.tenant_id, chat_id, request_id)
    chat = visible(found, call.caller)
    if turn is not None and ended_as_orphan(call, turn, rules):
        found, turn = turns.read(call.caller.tenant_id, chat_id, request_id)
        chat = visible(found, call.caller)
    return chat, turn


def freed(call: Call, chat: Chat, rules: Rules) -> bool:
    """Whether the turn that the chat's head names as running was dead and has ended now."""
    if chat.running_request_id is None:
        return False
    _, turn = turns.read(chat.tenant_id, chat.chat_id, chat.running_request_id)
    return turn is not None and ended_as_orphan(call, turn, rules)


def sweep(now: datetime, new_id: NewId, rules: Rules) -> Swept:
    """Ends the dead turns of all tenants, the longest dead first, in one bounded batch. Any number may run at once."""
    if not rules.settings.orphan_watchdog.enabled:
        return Swept(0, 0)
    old = turns.running_since(_cutoff(now, rules), limit=rules.settings.orphan_watchdog.batch_size)
    dead = [turn for turn in old if is_orphan(turn, _cutoff(now, rules))]
    ended = sum(ended_as_orphan(_on_behalf(turn, now, new_id), turn, rules) for turn in dead)
    return Swept(len(dead), ended)


def _on_behalf(turn: Turn, now: datetime, new_id: NewId) -> Call:
    caller = Caller(turn.tenant_id, turn.requester_user_id, turn.requester_type)
    return Call(caller, now, new_id)


def _cutoff(now: datetime, rules: Rules) -> datetime:
    return now - timedelta(seconds=rules.settings.orphan_watchdog.timeout_seconds)
