"""What a client is told while an answer is made: the events of contract 3, as values and as they are told."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from minichat.domain import answer_end, citations, usage
from minichat.domain.answer_end import CompletionSignal
from minichat.domain.citations import Citation
from minichat.domain.failure_codes import ERROR_MESSAGES
from minichat.domain.quota_left import Remaining
from minichat.domain.turn import QuotaDecision, Turn, TurnState
from minichat.domain.usage import Usage


@dataclass(frozen=True, slots=True)
class Started:
    """Always first. `message_id` is the assistant message's, chosen before it exists; `summary_tokens` are the estimate
    of the summary that stands for the older part of the chat, when the prompt has one."""

    request_id: str
    message_id: str
    is_new_turn: bool
    summary_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """More text."""

    content: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool started, goes on, or is done; `details` say what it did (`domain.tool_details`)."""

    phase: Literal["start", "progress", "done"]
    name: Literal["file_search", "web_search", "code_interpreter"]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Citations:
    """Sources of the answer; at most once, after the last delta, and never empty."""

    items: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The good end: whether the answer is whole, and what was really used."""

    signal: CompletionSignal
    usage: Usage
    effective_model: str
    selected_model: str
    quota_decision: QuotaDecision
    downgrade_reason: str | None = None
    quota_warnings: tuple[Remaining, ...] | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """The bad end: a stable code and a fixed sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Nothing new; the connection lives. Carries no id."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it is told: its name and its data. A resumed stream tells exactly what was told before."""

    name: str
    data: dict[str, Any]


StreamEvent = Started | Delta | Tool | Citations | Done | Error | Ping


def error(code: str) -> Error:
    """The error event of a code; a code that clients do not know becomes `internal_error`."""
    public = code if code in ERROR_MESSAGES else "internal_error"
    return Error(public, ERROR_MESSAGES[public])


def terminal_event(turn: Turn, warnings: tuple[Remaining, ...] | None = None) -> Done | Error:
    """The last event of a turn that has ended: from its own fields, so that it is the same whenever it is told."""
    if turn.state is not TurnState.COMPLETED:
        return error("cancelled" if turn.state is TurnState.CANCELLED else turn.error_code or "internal_error")
    made = turn.reserve
    return Done(
        turn.completion_signal or answer_end.COMPLETE,
        turn.usage,
        made.effective_model,
        made.selected_model,
        made.decision,
        made.downgrade_reason,
        warnings,
    )


def told(event: StreamEvent) -> Told:
    """The event as it is told."""
    name, data_of = _TOLD[type(event)]
    return Told(name, data_of(event))


def _started(event: Started) -> dict[str, Any]:
    data = {"request_id": event.request_id, "message_id": event.message_id, "is_new_turn": event.is_new_turn}
    if event.summary_tokens is None:
        return data
    return {**data, "thread_summary_applied": {"token_estimate": event.summary_tokens}}


def models_told(effective: str, selected: str, decision: QuotaDecision, reason: str | None) -> dict[str, Any]:
    """Which model answered, and why it was another one than the selected, as it is told."""
    models = {"effective_model": effective, "selected_model": selected, "quota_decision": decision}
    return models if decision == "allow" else {**models, "downgrade_from": selected, "downgrade_reason": reason}


def _done(event: Done) -> dict[str, Any]:
    data: dict[str, Any] = {
        "completion_signal": answer_end.told(event.signal),
        "usage": usage.told(event.usage, event.effective_model),
        **models_told(event.effective_model, event.selected_model, event.quota_decision, event.downgrade_reason),
    }
    if event.quota_warnings is not None:
        data["quota_warnings"] = [_warning(one) for one in event.quota_warnings]
    return data


def _warning(one: Remaining) -> dict[str, Any]:
    warning: dict[str, Any] = {
        "tier": one.bucket,
        "period": one.period,
        "remaining_percentage": one.percentage,
        "warning": one.warning,
        "exhausted": one.exhausted,
    }
    if one.warning:
        warning["next_reset"] = one.next_reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return warning


_TOLD: dict[type[StreamEvent], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    Started: ("stream_started", _started),
    Delta: ("delta", lambda event: {"type": "text", "content": event.content}),
    Tool: ("tool", lambda event: {"phase": event.phase, "name": event.name, "details": {**event.details}}),
    Citations: ("citations", lambda event: {"items": [citations.told(one) for one in event.items]}),
    Done: ("done", _done),
    Error: ("error", asdict),
    Ping: ("ping", lambda _: {}),
}
assert {*_TOLD} == set(get_args(StreamEvent)), "every event can be told"

NAMES: dict[type[StreamEvent], str] = {kind: name for kind, (name, _) in _TOLD.items()}
"""The name under which each event is told (contract 3)."""
