"""The end of a turn: one winner settles it, stores the answer and publishes its events (turns-and-quota 6)."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from minichat import observability
from minichat.domain.answer_end import COMPLETE
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import MICROSECOND, Call, instant_of
from minichat.domain.message import Message
from minichat.domain.message_size import fits_a_message
from minichat.domain.policy import UserLimits
from minichat.domain.quota_left import Remaining, remaining
from minichat.domain.quota_periods import PERIODS
from minichat.domain.settlement import Ending, Settlement, settle
from minichat.domain.spent import Spent
from minichat.domain.stream import Citations, Told, terminal_event, told
from minichat.domain.summary import Compression, Frontier
from minichat.domain.turn import Turn, TurnState
from minichat.events.base import Event
from minichat.events.payloads import (
    ChatTitleTask,
    CompletionRecord,
    ThreadSummaryTask,
    TokenUsage,
    UsageEvent,
)
from minichat.events.references import FrontierRef
from minichat.observability import count, logger, observe
from minichat.services import audit_details
from minichat.settings import Settings
from minichat.storage import endings, outbox, parts, quota
from minichat.storage.items import READS
from minichat.storage.transact import Put, Rejected

UNHEARD = 1_000_000
"""Numbers skipped before the terminal event of a turn whose teller is dead: more events than it can have told without
storing them, so that no number ever names two events (contract 3, rule 4)."""


_BEGINNINGS = ("start_turn", "replace_turn", "take_over_turn")
_STREAM = ("store_stream", "renew_turn")
"""What writes of a turn are for, besides its end."""


@dataclass(frozen=True, slots=True)
class Teller:
    """The process that tells a turn's stream, and ends the turn: `stored` events are stored, the `pending` ones will be
    with its end.

    With `limits` the terminal event says what is left of them. Once the turn completes, its `compression` is done, and
    its chat gets a title if it `wants_title`.
    """

    stored: int = 0
    pending: tuple[Told, ...] = ()
    limits: UserLimits | None = None
    compression: Compression | None = None
    wants_title: bool = False


@dataclass(frozen=True, slots=True)
class Finder:
    """A process that found a turn's teller dead: `stored` events of its stream are stored, and what else was told is
    unknown. With `stale_since` the turn ends only if it has given no sign of life after that instant."""

    stored: int = 0
    stale_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a turn really ended, and the last events of its stream: its citations, if any, and the terminal event.

    The first of these events has this number.
    """

    ending: Ending
    last_events: tuple[Told, ...]
    number: int


def finalize(
    call: Call,
    turn: Turn,
    ending: Ending,
    settings: Settings,
    by: Teller | Finder = Finder(),
) -> Ended | None:
    """How the turn really ended, or None when another finalizer had won and nothing was done. As `End.store`."""
    return End(call, turn, ending, settings, by).store()


class End:
    """One finalizer's end of a turn. It is made once, so storing it again is the same transaction: after an attempt
    whose answer was lost, the next one learns its result, and never takes its own win for another's."""

    def __init__(self, call: Call, turn: Turn, ending: Ending, settings: Settings, by: Teller | Finder) -> None:
        """Raises ServiceUnavailable when what the audit trail wants of the message cannot be read."""
        self._call = replace(call, now=max(call.now, turn.started_at + MICROSECOND))
        self._turn, self._settings, self._by = turn, settings, by
        self._make(ending if fits_a_message(ending.text) else _without_answer(ending), ending.text)

    def store(self) -> Ended | None:
        """How the turn really ended, or None when another finalizer had won and nothing was done.

        A completed turn whose answer cannot be stored ends as failed: there is no completed turn without its text.
        Raises ServiceUnavailable when the store does not answer; as far as can be known, the turn is still running
        then. To be called again, within the ten minutes for which DynamoDB knows a token.
        """
        started = time.perf_counter()
        try:
            won = self._commit()
        except Rejected:
            if not self._ending.text:
                raise
            logger.exception("an answer cannot be stored", extra={"turn_id": self._turn.turn_id})
            self._make(_without_answer(self._ending), self._ending.text)
            won = self._commit()
        observe("finalization_latency_ms", (time.perf_counter() - started) * 1000, "Milliseconds")
        if not won:
            return None
        self._count()
        return self._ended

    def _commit(self) -> bool:
        retention_days = self._settings.quota.retention_days
        return endings.finish(self._call, self._turn, self._finish, retention_days=retention_days)

    def _make(self, ending: Ending, text: str) -> None:
        """Settles the ending, and builds everything that goes with it. `text` was told, stored or not."""
        call, turn = self._call, self._turn
        settlement = settle(replace(ending, text=text), turn.reserve, self._settings.quota.overshoot_tolerance_pct)
        ended = _ended(turn, ending)
        events: list[Event] = [
            # As long as it will be, with what is spent by now.
            _usage_event(call, replace(ended, spent=_spent(self._by, 10)), ending, settlement),
            audit_details.turn_ended(call, ended, ending, self._settings),
        ]
        told_with_it: list[Put] = []
        stale_since: datetime | None = None
        terminal_number: int | None = None
        match self._by:
            case Teller() as teller:
                last_events = _last_events(ended, ending, self._warnings(teller, ending, settlement))
                first = teller.stored + len(teller.pending) + 1
                stored = first + len(last_events) - 1
                kept = timedelta(hours=self._settings.streaming.parts_kept_hours)
                untold = (*teller.pending, *last_events)
                told_with_it = parts.puts(turn, teller.stored + 1, untold, kept=kept)
                events += _tasks(call, turn, ending, teller)
            case Finder(stored=stored, stale_since=stale_since):
                last_events = _last_events(ended, ending)
                first = stored + UNHEARD
                terminal_number = first + len(last_events) - 1
        self._ending = ending
        finish = endings.Finish(
            token=call.new_id(call.now),
            ending=ending,
            settlement=settlement,
            answer=_answer(call, ended, ending),
            events=tuple(outbox.item(call, turn.chat_id, event) for event in events),
            parts=tuple(told_with_it),
            events_stored=stored,
            terminal_number=terminal_number,
            stale_since=stale_since,
        )
        spent = _spent(self._by, endings.least_units(call, turn, finish))
        usage = _usage_event(call, replace(ended, spent=spent), ending, settlement)
        events_with = (outbox.item(call, turn.chat_id, usage), *finish.events[1:])
        self._finish = replace(finish, spent=spent, events=events_with)
        self._ended = Ended(ending, last_events, first)

    def _count(self) -> None:
        _count_settlement(self._turn, self._ending, self._finish.settlement)
        match self._ending.state, self._by:
            case TurnState.COMPLETED, Teller(compression=due) if self._settings.thread_summary.enabled:
                count("thread_summary_trigger_total", result="not_needed" if due is None else "scheduled")

    def _warnings(self, teller: Teller, ending: Ending, settlement: Settlement) -> tuple[Remaining, ...] | None:
        """What is left to the user once a completed turn is settled.

        None when that cannot be read: no answer waits for it.
        """
        turn, now = self._turn, self._call.now
        if ending.state is not TurnState.COMPLETED or teller.limits is None:
            return None
        try:
            before = quota.read(turn.tenant_id, turn.requester_user_id, teller.limits, now)
        except ServiceUnavailable:
            return None
        after = before.settled(turn.reserve, settlement.committed_micro, now)
        return tuple(remaining(after, self._settings.quota.warning_threshold_pct, now))


def _spent(by: Teller | Finder, ended_writes: int) -> Spent:
    """What the turn has cost to run, in the request that has begun it; who finds a dead one does not know that."""
    told = None if isinstance(by, Finder) else observability.spent()
    if told is None:
        return Spent(ended_writes=ended_writes)
    units, milliseconds = told
    begun = sum(units.get(op, 0.0) for op in _BEGINNINGS)
    streamed = sum(units.get(op, 0.0) for op in _STREAM)
    return Spent(*(math.ceil(one) for one in (begun, streamed, ended_writes, units.get(READS, 0.0), milliseconds)))


def _without_answer(ending: Ending) -> Ending:
    return replace(
        ending, state=TurnState.FAILED, error_code="message_persistence_failed", text="", citations=(), cut=None
    )


def _count_settlement(turn: Turn, ending: Ending, settlement: Settlement) -> None:
    overshot = ending.usage.input_tokens + ending.usage.output_tokens > turn.reserve.tokens
    for period in PERIODS:
        if settlement.method != "released":
            count("quota_commit_total", period=period)
        if settlement.method == "actual" and overshot:
            count("quota_overshoot_total", period=period)
    observe("turn_credits_micro", settlement.committed_micro, "None", model=turn.reserve.effective_model)


def _ended(turn: Turn, ending: Ending) -> Turn:
    """The turn once this ending is stored, as far as readers see it.

    A completed turn has its text, even an empty one; a cancelled or orphaned one keeps what it had; others have none.
    """
    cut_short = ending.state is TurnState.CANCELLED or ending.error_code == "orphan_timeout"
    is_answered = ending.state is TurnState.COMPLETED or (cut_short and ending.text)
    return replace(
        turn,
        state=ending.state,
        messages=2 if is_answered else 1,
        error_code=ending.error_code,
        usage=ending.usage,
        tool_calls=ending.tool_calls,
        cites=bool(ending.citations),
        cut=ending.cut,
    )


def _last_events(ended: Turn, ending: Ending, warnings: tuple[Remaining, ...] | None = None) -> tuple[Told, ...]:
    terminal = told(terminal_event(ended, warnings))
    return (told(Citations(ending.citations)), terminal) if ending.citations else (terminal,)


def _answer(call: Call, turn: Turn, ending: Ending) -> Message | None:
    """The answer's message of an ended turn."""
    signal, known = turn.completion_signal, ending.usage.known
    if signal is None:
        return None
    is_downgraded = turn.reserve.decision == "downgrade"
    return Message(
        message_id=turn.assistant_message_id,
        request_id=turn.request_id,
        role="assistant",
        content=ending.text,
        # A chat's messages are in order, whatever the clocks say; the id gives this one's place.
        created_at=max(call.now, instant_of(UUID(turn.assistant_message_id))),
        model=turn.reserve.effective_model,
        input_tokens=ending.usage.input_tokens if known else None,
        output_tokens=ending.usage.output_tokens if known else None,
        citations=ending.citations,
        cut=None if signal == COMPLETE else signal,
        tool_calls=ending.tool_calls,
        selected_model=turn.reserve.selected_model if is_downgraded else None,
        downgrade_reason=turn.reserve.downgrade_reason if is_downgraded else None,
    )


def _usage_event(call: Call, turn: Turn, ending: Ending, settlement: Settlement) -> UsageEvent:
    return UsageEvent(
        tenant_id=turn.tenant_id,
        user_id=turn.requester_user_id,
        chat_id=turn.chat_id,
        turn_id=turn.turn_id,
        request_id=turn.request_id,
        requester_type=turn.requester_type,
        selected_model=turn.reserve.selected_model,
        effective_model=turn.reserve.effective_model,
        tier="premium" if turn.reserve.premium else "standard",
        terminal_state=ending.state.value,
        billing_outcome=settlement.outcome,
        settlement_method=settlement.method,
        usage=TokenUsage.told(ending.usage),
        completion_signal=CompletionRecord.told(turn.completion_signal),
        reserved_credits_micro=turn.reserve.credits_micro,
        actual_credits_micro=settlement.actual_micro,
        committed_credits_micro=settlement.committed_micro,
        overshoot_capped=settlement.overshoot_capped,
        policy_version_applied=turn.reserve.policy_version,
        tenant_policy_version=turn.reserve.tenant_policy_version,
        user_policy_version=turn.reserve.user_policy_version,
        web_search_calls=ending.tool_calls.web_search,
        code_interpreter_calls=ending.tool_calls.code_interpreter,
        file_search_calls=ending.tool_calls.file_search,
        image_inputs=turn.reserve.used(ending.tool_calls, settlement.method).image_inputs,
        writes=0 if turn.spent is None else turn.spent.writes,
        reads=0 if turn.spent is None else turn.spent.reads,
        ms=0 if turn.spent is None else turn.spent.milliseconds,
        timestamp=call.now,
    )


def _tasks(call: Call, turn: Turn, ending: Ending, teller: Teller) -> Iterator[Event]:
    """What is to be done once the turn has completed."""
    if ending.state is not TurnState.COMPLETED:
        return
    if teller.compression is not None:
        yield _summary_task(call, turn, teller.compression)
    if teller.wants_title and ending.text.strip():
        yield _title_task(call, turn)


def _summary_task(call: Call, turn: Turn, due: Compression) -> ThreadSummaryTask:
    return ThreadSummaryTask(
        tenant_id=turn.tenant_id,
        chat_id=turn.chat_id,
        user_id=turn.requester_user_id,
        system_request_id=call.new_id(call.now),
        system_task_type="thread_summary_update",
        base_frontier=None if due.base is None else _ref(due.base),
        frozen_target=_ref(due.target),
    )


def _title_task(call: Call, turn: Turn) -> ChatTitleTask:
    return ChatTitleTask(
        tenant_id=turn.tenant_id,
        chat_id=turn.chat_id,
        user_id=turn.requester_user_id,
        system_request_id=call.new_id(call.now),
        system_task_type="chat_title",
        user_message_id=turn.user_message_id,
        assistant_message_id=turn.assistant_message_id,
    )


def _ref(frontier: Frontier) -> FrontierRef:
    return FrontierRef(created_at=frontier.created_at, message_id=frontier.message_id)
