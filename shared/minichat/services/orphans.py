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
from minichat.domain.turn import never_began as turn_never_began
from minichat.observability import count, logger
from minichat.services.finalize import Finalizer, finalize
from minichat.settings import Settings
from minichat.storage import parts, turn_lists, turns
from minichat.storage.transact import Rejected

CANCEL_PATIENCE = timedelta(seconds=15)
"""How long a turn that was asked to stop may be silent: three times as long as a living one is at most."""
BEGINNING_PATIENCE = timedelta(seconds=15)
"""How long a turn may be silent that has not said yet that its provider was called: the first sign of life says so, a
second after the start. Nothing of it was told to anybody, and it costs nothing, so to be wrong is cheap."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What one run of the watchdog did."""

    detected: int
    finalized: int


def ended_as_orphan(call: Call, turn: Turn, settings: Settings) -> bool:
    """Whether the turn is dead, in which case it has an end now: this one, or that of another who noticed too.

    It is charged by estimate when its provider was called, and not at all when it was not, and it keeps the text that
    was stored of its stream (turns-and-quota 6, 8).
    """
    cutoff = _cutoff(turn, call.now, settings)
    if not is_orphan(turn, cutoff):
        return False
    count("orphan_detected_total")
    told = [event for _, event in parts.after(turn, 0)]
    text = "".join(event.data["content"] for event in told if event.name == "delta")
    called = turn.provider_request_started_at is not None
    if turn.cancel_requested_at is not None:
        ending = Ending(TurnState.CANCELLED, text=text, provider_called=called)
    else:
        ending = Ending(TurnState.FAILED, "orphan_timeout", text=text, provider_called=called)
    ended = finalize(call, turn, ending, settings, Finalizer(stored=len(told), stale_since=cutoff))
    # Also a zero: an alarm compares the two, and cannot with a metric that never was.
    count("orphan_finalized_total", ended is not None)
    return True


def never_began(call: Call, turn: Turn, settings: Settings) -> bool:
    """Whether the process that began a turn died before it called the provider, so that another may make its answer."""
    return turn_never_began(turn, _cutoff(turn, call.now, settings))


def looked_at(call: Call, chat_id: ChatId, request_id: RequestId, settings: Settings) -> tuple[Chat, Turn | None]:
    """A chat of the caller and one of its turns, deleted or not; a turn that is found dead has ended now.

    Raises ChatNotFound.
    """
    found, turn = turns.read(call.caller.tenant_id, chat_id, request_id)
    chat = visible(found, call.caller)
    if turn is not None and ended_as_orphan(call, turn, settings):
        found, turn = turns.read(call.caller.tenant_id, chat_id, request_id)
        chat = visible(found, call.caller)
    return chat, turn


def freed(call: Call, chat: Chat, settings: Settings) -> bool:
    """Whether the turn that the chat's head names as running was dead and has ended now."""
    if chat.running_request_id is None:
        return False
    _, turn = turns.read(chat.tenant_id, chat.chat_id, chat.running_request_id)
    return turn is not None and ended_as_orphan(call, turn, settings)


def sweep(now: datetime, new_id: NewId, settings: Settings) -> Swept:
    """Ends the dead turns of all tenants, the longest dead first, in one bounded batch. Any number may run at once."""
    if not settings.orphan_watchdog.enabled:
        return Swept(0, 0)
    timeout = timedelta(seconds=settings.orphan_watchdog.timeout_seconds)
    old = turn_lists.running_since(now - timeout, limit=settings.orphan_watchdog.batch_size)
    dead = [turn for turn in old if is_orphan(turn, _cutoff(turn, now, settings))]
    ended = 0
    for turn in dead:
        try:
            ended += ended_as_orphan(_on_behalf(turn, now, new_id), turn, settings)
        except Rejected:
            # One turn that can never be ended must not keep those behind it from their end.
            logger.exception("a dead turn cannot be ended", extra={"turn_id": turn.turn_id})
    return Swept(len(dead), ended)


def _on_behalf(turn: Turn, now: datetime, new_id: NewId) -> Call:
    caller = Caller(turn.tenant_id, turn.requester_user_id, turn.requester_type)
    return Call(caller, now, new_id)


def _cutoff(turn: Turn, now: datetime, settings: Settings) -> datetime:
    patience = timedelta(seconds=settings.orphan_watchdog.timeout_seconds)
    if turn.cancel_requested_at is not None:
        patience = min(patience, CANCEL_PATIENCE)
    if turn.provider_request_started_at is None:
        patience = min(patience, BEGINNING_PATIENCE)
    return now - patience
