"""What a client is told while an answer is made: the events of contract 3, as values."""

from dataclasses import dataclass
from typing import Any, Literal

from minichat.domain.standing import Remaining
from minichat.domain.turn import QuotaDecision
from minichat.domain.usage import Usage


@dataclass(frozen=True, slots=True)
class Started:
    """Always first. `message_id` is the assistant message's, chosen before it exists."""

    request_id: str
    message_id: str
    is_new_turn: bool


@dataclass(frozen=True, slots=True)
class Delta:
    """More text."""

    content: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool started, goes on, or is done."""

    phase: Literal["start", "progress", "done"]
    name: Literal["file_search", "web_search", "code_interpreter"]


@dataclass(frozen=True, slots=True)
class Citations:
    """Sources of the answer; at most once, after the last delta."""

    items: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The good end, with what was really used."""

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


StreamEvent = Started | Delta | Tool | Citations | Done | Error | Ping

ERROR_MESSAGES = {
    "provider_error": "The provider could not complete the answer.",
    "provider_timeout": "The provider took too long to answer.",
    "rate_limited": "The provider is receiving too many requests.",
    "web_search_calls_exceeded": "The answer needed more web searches than one message may use.",
    "code_interpreter_calls_exceeded": "The answer needed more code interpreter calls than one message may use.",
    "cancelled": "The turn was cancelled.",
    "internal_error": "The answer could not be completed.",
}
"""What a client reads for each code; a provider's own words never leave the backend."""


def error(code: str) -> Error:
    """The error event of a code; a code that clients do not know becomes `internal_error`."""
    public = code if code in ERROR_MESSAGES else "internal_error"
    return Error(public, ERROR_MESSAGES[public])
