"""The end of a turn: one winner settles it, stores the answer and lets the events out (turns-and-quota 6)."""

from dataclasses import replace
from datetime import datetime

from minichat.domain.identity import MICROSECOND, Call
from minichat.domain.message import MESSAGE_MAX_BYTES, Message
from minichat.domain.settlement import Ending, Settlement, settle
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import (
    Latency,
    PolicyDecisions,
    QuotaDecisionRecord,
    TokenUsage,
    ToolCallCounts,
    TurnEnded,
    UsageEvent,
)
from minichat.observability import logger
from minichat.settings import Settings
from minichat.storage import outbox, turns
from minichat.storage.transact import Rejected


def finalize(
    call: Call, turn: Turn, ending: Ending, settings: Settings, *, stale_since: datetime | None = None
) -> Ending | None:
    """How the turn really ended, or None when another finalizer had won and nothing was done.

    With `stale_since` it ends only when it has given no sign of life after that instant. A completed turn whose answer
    cannot be stored ends as failed: there is no completed turn without its text.
    Raises ServiceUnavailable when the store does not answer; the turn is still running then.
    """
    if len(ending.text.encode()) > MESSAGE_MAX_BYTES:
        ending = _without_answer(ending)
    try:
        return _finalize(call, turn, ending, settings, stale_since)
    except Rejected:
        if not ending.text:
            raise
        logger.exception("an answer cannot be stored", extra={"turn_id": turn.turn_id})
        return _finalize(call, turn, _without_answer(ending), settings, stale_since)


def _without_answer(ending: Ending) -> Ending:
    return replace(ending, state=TurnState.FAILED, error_code="message_persistence_failed", text="")


def _finalize(
    call: Call, turn: Turn, ending: Ending, settings: Settings, stale_since: datetime | None
) -> Ending | None:
    settlement = settle(ending, turn.reserve, settings.quota.overshoot_tolerance_pct)
    call = replace(call, now=max(call.now, turn.started_at + MICROSECOND))
    events = (_usage_event(call, turn, ending, settlement), _audit_event(call, turn, ending))
    end = turns.Finish(
        ending=ending,
        settlement=settlement,
        answer=_answer(call, turn, ending),
        events=tuple(outbox.item(call, turn.chat_id, event) for event in events),
        stale_since=stale_since,
    )
    won = turns.finish(call, turn, end, retention_days=settings.quota.retention_days)
    return ending if won else None


def _answer(call: Call, turn: Turn, ending: Ending) -> Message | None:
    """A completed turn has its text, even an empty one; a cancelled turn keeps what it had; a failed one has none."""
    keeps_text = ending.state is TurnState.COMPLETED or (ending.state is TurnState.CANCELLED and ending.text != "")
    if not keeps_text:
        return None
    return Message(
        message_id=turn.assistant_message_id,
        request_id=turn.request_id,
        role="assistant",
        content=ending.text,
        created_at=call.now,
        model=turn.reserve.effective_model,
        input_tokens=ending.usage.input_tokens or None,
        output_tokens=ending.usage.output_tokens or None,
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
        terminal_state=ending.state.value,
        billing_outcome=settlement.outcome,
        settlement_method=settlement.method,
        usage=_tokens(ending.usage) if ending.usage.known else None,
        reserved_credits_micro=turn.reserve.credits_micro,
        actual_credits_micro=settlement.actual_micro,
        committed_credits_micro=settlement.committed_micro,
        overshoot_capped=settlement.overshoot_capped,
        policy_version_applied=turn.reserve.policy_version,
        web_search_calls=ending.tool_calls.web_search,
        code_interpreter_calls=ending.tool_calls.code_interpreter,
        file_search_calls=ending.tool_calls.file_search,
        timestamp=call.now,
    )


def _audit_event(call: Call, turn: Turn, ending: Ending) -> TurnEnded:
    completed = ending.state is TurnState.COMPLETED
    cancelled = ending.state is TurnState.CANCELLED
    downgraded = turn.reserve.decision == "downgrade"
    return TurnEnded(
        event_type="turn_completed" if completed else "turn_failed",
        tenant_id=turn.tenant_id,
        timestamp=call.now,
        requester_type=turn.requester_type,
        trace_id=call.trace_id or None,
        user_id=turn.requester_user_id,
        chat_id=turn.chat_id,
        turn_id=turn.turn_id,
        request_id=turn.request_id,
        selected_model=turn.reserve.selected_model,
        effective_model=turn.reserve.effective_model,
        policy_version_applied=turn.reserve.policy_version,
        usage=_tokens(ending.usage),
        latency_ms=Latency(ttft_ms=ending.ttft_ms, total_ms=int((call.now - turn.started_at).total_seconds() * 1000)),
        policy_decisions=PolicyDecisions(
            quota=QuotaDecisionRecord(
                decision=turn.reserve.decision,
                downgrade_from=turn.reserve.selected_model if downgraded else None,
                downgrade_reason=turn.reserve.downgrade_reason,
            )
        ),
        error_code="cancelled" if cancelled else ending.error_code,
        tool_calls=ToolCallCounts(
            file_search_calls=ending.tool_calls.file_search,
            web_search_calls=ending.tool_calls.web_search,
            code_interpreter_calls=ending.tool_calls.code_interpreter,
        ),
    )


def _tokens(usage: Usage) -> TokenUsage:
    return TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        cache_write_input_tokens=usage.cache_write_input_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
