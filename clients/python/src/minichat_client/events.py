"""What the stream of an answer tells, from the server's OpenAPI document.

Made from the code by `make docs`: change it there.
"""

from dataclasses import dataclass
from typing import Any, Literal

from minichat_client.types import CitationView, CompletionView, QuotaWarning, SummaryApplied, ToolDetailsView, UsageView


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of a stream: its number in the turn, from 1."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """An event that a newer server tells and this client does not know."""

    name: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStartedEvent(Event):
    """The turn is durable, and its answer begins."""

    request_id: str
    message_id: str
    is_new_turn: bool
    thread_summary_applied: SummaryApplied | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaEvent(Event):
    """More text."""

    type: Literal["text"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEvent(Event):
    """A tool started, goes on, or is done."""

    phase: Literal["start", "progress", "done"]
    name: Literal["file_search", "web_search", "code_interpreter"]
    details: ToolDetailsView


@dataclass(frozen=True, slots=True, kw_only=True)
class CitationsEvent(Event):
    """Sources of the answer."""

    items: list[CitationView]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneEvent(Event):
    """The end of an answer, complete or cut."""

    completion_signal: CompletionView
    usage: UsageView | None
    """Null when it is not known."""
    effective_model: str
    selected_model: str
    quota_decision: Literal["allow", "downgrade"]
    downgrade_from: str | None = None
    downgrade_reason: str | None = None
    quota_warnings: list[QuotaWarning] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEvent(Event):
    """The end of a failed or cancelled answer."""

    code: Literal[
        "cancelled",
        "code_interpreter_calls_exceeded",
        "context_length_exceeded",
        "file_search_calls_exceeded",
        "internal_error",
        "interrupted",
        "provider_error",
        "provider_timeout",
        "rate_limited",
        "unexpected_tool_use",
        "validation_error",
        "web_search_calls_exceeded",
    ]
    message: str


EVENTS: dict[str, type[Event]] = {
    "stream_started": StreamStartedEvent,
    "delta": DeltaEvent,
    "tool": ToolEvent,
    "citations": CitationsEvent,
    "done": DoneEvent,
    "error": ErrorEvent,
}
