"""How an answer ended, for the metrics and for the log (events-and-workers 7)."""

from dataclasses import asdict
from datetime import datetime

from minichat.domain.failure_codes import KNOWN_ERROR_CODES
from minichat.domain.identity import Call
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.observability import count, logger, observe
from minichat.services.new_turn import RunningTurn


def measure_answer(running: RunningTurn, ending: Ending, unwanted_since: datetime | None, now: datetime) -> None:
    """Counts an answer by its end, which is now, and what it took: time, tools, input beside its estimate."""
    provider, model = running.admission.model.provider_id, running.admission.model.id
    match ending.state:
        case TurnState.COMPLETED:
            count("stream_completed_total", provider=provider, model=model)
            if ending.cut is not None:
                count("stream_incomplete_total", provider=provider, model=model, reason=ending.cut.why)
        case TurnState.CANCELLED:
            count("stream_cancelled_total", provider=provider, model=model)
            if unwanted_since is not None:
                aborted_ms = max((now - unwanted_since).total_seconds() * 1000, 0)
                observe("time_to_abort_ms", aborted_ms, "Milliseconds", provider=provider, model=model)
        case _:
            code = ending.error_code if ending.error_code in KNOWN_ERROR_CODES else "internal_error"
            count("stream_failed_total", provider=provider, model=model, error_code=str(code))
    if ending.ttft_ms is not None:
        observe("ttft_ms", ending.ttft_ms, "Milliseconds", provider=provider, model=model)
    for tool, calls in asdict(ending.tool_calls).items():
        if calls:
            count("tool_calls_total", calls, tool=tool)
    if ending.usage.input_tokens and not any(asdict(ending.tool_calls).values()):
        # What tools put into the prompt was set aside by its worst case, and says nothing of the rule.
        reserve = running.turn.reserve
        estimated = reserve.tokens - reserve.max_output_tokens
        observe("input_estimate_pct", 100 * estimated / ending.usage.input_tokens, "None", model=model)
    total_ms = max((now - running.turn.started_at).total_seconds() * 1000, 0)
    observe("stream_total_ms", total_ms, "Milliseconds", provider=provider, model=model)


def log_answer(call: Call, running: RunningTurn, ending: Ending) -> None:
    """The one line that says what the provider calls an answer, beside everything that it is called here."""
    turn, model = running.turn, running.admission.model
    ids = {"trace_id": call.trace_id, "tenant_id": turn.tenant_id, "chat_id": turn.chat_id, "turn_id": turn.turn_id}
    theirs = {"provider": model.provider_id, "model": model.id, "provider_response_id": ending.provider_response_id}
    end = {"state": ending.state.value, "error_code": ending.error_code}
    logger.info("answer", extra={**ids, "request_id": turn.request_id, **theirs, **end})
