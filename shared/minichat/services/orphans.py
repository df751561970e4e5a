"""Turns whose process died: a request or the watchdog finds them, and both end them by the same conditional write.

                started        last sign of life          cutoff = now - timeout        now
    alive       |--------------------------------------------|------x----------------------|
    dead        |--------x-----------------------------------|-----------------------------|

A zombie that wakes up after its turn was ended fails the condition of its own finalization and does nothing.
"""

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from minichat.domain.chat import Chat
from minichat.domain.chat_visibility import visible
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import Call, Caller, ChatId, NewId, RequestId
from minichat.domain.orphan import cutoff, is_orphan
from minichat.domain.orphan import never_began as turn_never_began
from minichat.domain.settlement import Ending
from minichat.domain.turn import ToolCalls, Turn, TurnState
from minichat.observability import count, logger
from minichat.pauses import CHANCE
from minichat.services.finalize import Finder, finalize
from minichat.settings import Settings
from minichat.storage import keys, parts, transact, turn_lists, turns
from minichat.storage.unreadable import Unreadable

SWEEP_SECONDS = 40
"""Default time limit of a sweep: less than the minute until the next one."""
TURN_SECONDS = 2
"""How long a sweep tries to end one turn; the next sweep tries again."""


@dataclass(frozen=True, slots=True)
class OrphanSweep:
    """What one run of the watchdog did; `failed` turns could not be read or ended: the next run tries them again."""

    detected: int
    finalized: int
    failed: int = 0


def ended_as_orphan(call: Call, turn: Turn, settings: Settings) -> bool:
    """Ends a dead turn; whether it was dead. Someone else who noticed may have ended it first.

    It is charged by estimate if its provider was called, and otherwise not at all. It keeps the stored text of its
    stream, and its tool calls (turns-and-quota 6, 8).
    """
    since = cutoff(turn, call.now, _timeout(settings))
    if not is_orphan(turn, since):
        return False
    count("orphan_detected_total")
    told = [event for _, event in parts.after(turn, 0)]
    text = "".join(event.data["content"] for event in told if event.name == "delta")
    called = turn.provider_request_started_at is not None
    if turn.cancel_requested_at is not None:
        ending = Ending(TurnState.CANCELLED, text=text, provider_called=called)
    else:
        ending = Ending(TurnState.FAILED, "orphan_timeout", text=text, provider_called=called)
    begun = Counter(event.data["name"] for event in told if event.name == "tool" and event.data["phase"] == "start")
    made = ToolCalls(begun["web_search"], begun["code_interpreter"], begun["file_search"])
    ending = replace(ending, tool_calls=made)
    ended = finalize(call, turn, ending, settings, Finder(len(told), stale_since=since))
    if ended is None:
        count("cas_lost_total", actor="orphan")
    # A zero counts too: an alarm compares the two metrics, and cannot if one was never emitted.
    count("orphan_finalized_total", ended is not None)
    return True


def never_began(call: Call, turn: Turn, settings: Settings) -> bool:
    """Whether the process that began a turn died before calling the provider; another may then make its answer."""
    return turn_never_began(turn, cutoff(turn, call.now, _timeout(settings)))


def read_and_repair(call: Call, chat_id: ChatId, request_id: RequestId, settings: Settings) -> tuple[Chat, Turn | None]:
    """A chat of the caller and one of its turns, deleted or not. Ends the turn first if it is dead.

    Raises ChatNotFound.
    """
    found, turn = turns.read(call.caller.tenant_id, chat_id, request_id)
    chat = visible(found, call.caller)
    if turn is not None and ended_as_orphan(call, turn, settings):
        found, turn = turns.read(call.caller.tenant_id, chat_id, request_id)
        chat = visible(found, call.caller)
    return chat, turn


def end_if_dead(call: Call, chat: Chat, settings: Settings) -> bool:
    """Whether the turn that the chat's head names as running has ended: by itself, or here because it was dead.

    The answer is read back, not assumed: a turn that gives a sign of life meanwhile refuses its end and runs on.
    """
    if chat.running_request_id is None:
        return False
    where = chat.tenant_id, chat.chat_id, chat.running_request_id
    _, turn = turns.read(*where)
    if turn is not None and ended_as_orphan(call, turn, settings):
        _, turn = turns.read(*where)
    return turn is None or turn.state is not TurnState.RUNNING


def sweep(now: datetime, new_id: NewId, settings: Settings, *, seconds: float = SWEEP_SECONDS) -> OrphanSweep:
    """Ends dead turns of all tenants: at most one batch, within so many seconds. Any number of sweeps may run at once.

    Each turn is judged and ended by itself, in random order, so that turns that cannot be ended do not use up the time
    of the others in every run.
    """
    if not settings.orphan_watchdog.enabled:
        return OrphanSweep(0, 0)
    began, ended = time.monotonic(), 0
    dead, failed = _dead(now, settings, until=began + seconds / 2)
    CHANCE.shuffle(dead)
    for turn in dead[: settings.orphan_watchdog.batch_size]:
        if time.monotonic() - began >= seconds:
            break
        try:
            with transact.patience(TURN_SECONDS):
                ended += ended_as_orphan(_on_behalf(turn, now, new_id), turn, settings)
        except Exception:  # the edge of one turn: whatever went wrong, the turns behind it still get their end
            failed += 1
            logger.exception("a dead turn cannot be ended", extra={"turn_id": turn.turn_id})
    count("orphan_failed_total", failed)
    return OrphanSweep(len(dead), ended, failed)


def _dead(now: datetime, settings: Settings, *, until: float) -> tuple[list[Turn], int]:
    """The dead among the running turns, as many as can be read in time, and how many are unreadable."""
    dead: list[Turn] = []
    failed = 0
    timeout = timedelta(seconds=settings.orphan_watchdog.timeout_seconds)
    for shard in CHANCE.sample(keys.RUNNING_SHARDS, len(keys.RUNNING_SHARDS)):
        try:
            for page in turn_lists.running_since(now - timeout, shard):
                for turn in page:
                    if isinstance(turn, Unreadable):
                        failed += 1
                        logger.error("a running turn cannot be read", extra={"item": turn.key, "reason": turn.reason})
                    elif is_orphan(turn, cutoff(turn, now, _timeout(settings))):
                        dead.append(turn)
                if time.monotonic() >= until:
                    break
        except ServiceUnavailable:
            failed += 1
            logger.exception("running turns cannot be listed", extra={"shard": shard})
    return dead, failed


def _on_behalf(turn: Turn, now: datetime, new_id: NewId) -> Call:
    caller = Caller(turn.tenant_id, turn.requester_user_id, turn.requester_type)
    return Call(caller, now, new_id)


def _timeout(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.orphan_watchdog.timeout_seconds)
