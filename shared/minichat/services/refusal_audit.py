"""Decisions that went against a caller leave an audit event (events-and-workers 2): licence, quota, rate, kill switch,
and who may do what.

A refusal has no transaction, so its event is a write of its own. Repeated refusals must not cause repeated writes:
there is one event per user, decision and minute. Its id is made of those, so instances that share nothing agree on it,
and each process remembers the ones it knows to be written.

None of this may fail or delay the answer: it waits for the event only as long as a healthy store needs, and few events
are written at a time.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from minichat import greenlets
from minichat.domain.errors import (
    ChatError,
    FeatureNotLicensed,
    Forbidden,
    ImagesDisabled,
    QuotaExceeded,
    RateLimited,
    UsedUp,
    WebSearchDisabled,
)
from minichat.domain.identity import Caller, uuid7
from minichat.events.payloads import DecisionRefused
from minichat.observability import logger
from minichat.storage import outbox
from minichat.storage.transact import patience

Decision = Literal["license", "quota", "rate", "kill_switch", "authorization"]

_DECISIONS: dict[type[ChatError], Decision] = {
    FeatureNotLicensed: "license",
    QuotaExceeded: "quota",
    RateLimited: "rate",
    WebSearchDisabled: "kill_switch",
    ImagesDisabled: "kill_switch",
    Forbidden: "authorization",
}
REMEMBERED = 10_000
"""Written events that a process remembers; above that it forgets all of them, and asks the outbox again."""
PATIENCE_SECONDS = 1
WAIT_SECONDS = 0.5
"""How long an answer waits for its event to be written: a function may be frozen right after its answer."""
AT_ONCE = 8
"""Events that a process writes at the same time; a refusal beyond them leaves none."""

Fate = Literal["written", "known", "late", "lost", "dropped"]
"""What became of an event: `known` is a second one of its kind in a minute, `late` one that is still being written."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A decision against a caller: which one, the problem's code, the chat if the request named one, the limit; the
    action that was refused, and the ids of the policies that refused it."""

    caller: Caller
    decision: Decision
    code: str
    chat_id: str | None = None
    limit: UsedUp | None = None
    action: str | None = None
    policies: tuple[str, ...] = ()


def of_error(error: ChatError, caller: Caller, chat_id: str | None) -> Refusal | None:
    """The decision behind a caller's error; None when the error is no such decision."""
    decision = next((_DECISIONS[kind] for kind in type(error).__mro__ if kind in _DECISIONS), None)
    if decision is None:
        return None
    limit = None
    match error:
        case QuotaExceeded():
            limit = error.limit
        case RateLimited():
            limit = UsedUp(error.scope, error.whose)
        case Forbidden():
            return Refusal(caller, decision, error.code, chat_id, action=error.action, policies=error.policies)
    return Refusal(caller, decision, error.code, chat_id, limit)


class RefusalTeller:
    """The refusals that this process knows to be written."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._writing: set[asyncio.Task[bool]] = set()

    async def tell(self, refusal: Refusal, now: datetime, trace_id: str) -> Fate:
        """Writes the event of a refusal, and returns what became of it after half a second at most."""
        if len(self._writing) >= AT_ONCE:
            return "dropped"
        task = asyncio.create_task(greenlets.run(self.write, refusal, now, trace_id))
        self._writing.add(task)
        task.add_done_callback(self._written)
        done, _ = await asyncio.wait({task}, timeout=WAIT_SECONDS)
        if not done:
            return "late"
        if task.exception() is not None:
            return "lost"
        return "written" if task.result() else "known"

    def write(self, refusal: Refusal, now: datetime, trace_id: str) -> bool:
        """Writes the event of a refusal; False when it is the user's second of its kind in this minute.

        Raises ServiceUnavailable.
        """
        event_id = _event_id(refusal, now)
        if event_id in self._ids:
            return False
        with patience(PATIENCE_SECONDS):
            new = outbox.once(_event(refusal, now, trace_id), event_id)
        if len(self._ids) >= REMEMBERED:
            self._ids = set()
        self._ids.add(event_id)
        return new

    def _written(self, task: asyncio.Task[bool]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.error("a refusal left no audit event", exc_info=problem)


def _event_id(refusal: Refusal, now: datetime) -> str:
    caller, limit = refusal.caller, refusal.limit or UsedUp("")
    of: tuple[str | None, ...]
    of = caller.tenant_id, caller.user_id, refusal.decision, refusal.code, limit.scope, limit.tier, limit.period
    if refusal.decision == "authorization":
        # Which chat somebody tried to get at matters to whoever reads the trail.
        of = (*of, refusal.action, refusal.chat_id)
    digest = hashlib.sha256(repr(of).encode()).digest()
    return str(uuid7(now.replace(second=0, microsecond=0), int.from_bytes(digest[:8])))


def _event(refusal: Refusal, now: datetime, trace_id: str) -> DecisionRefused:
    limit = refusal.limit
    return DecisionRefused(
        tenant_id=refusal.caller.tenant_id,
        timestamp=now,
        requester_type=refusal.caller.subject_type,
        trace_id=trace_id or None,
        actor_user_id=refusal.caller.user_id,
        decision=refusal.decision,
        code=refusal.code,
        chat_id=refusal.chat_id,
        quota_scope=None if limit is None else limit.scope,
        quota_tier=None if limit is None else limit.tier,
        quota_period=None if limit is None else limit.period,
        action=refusal.action,
        policies=list(refusal.policies),
    )
