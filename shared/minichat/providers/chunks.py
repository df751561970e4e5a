"""What a provider can say while it answers, in the product's words.

An adapter's last chunk is its only terminal one (`Completed`, `Incomplete` or `Failed`).
The only provider identifiers in chunks are an answer's `response_id`, which is stored and never shown, and the ids of
the files that it cites or searched, which clients see as the chat's attachments.
"""

from dataclasses import dataclass, field
from typing import Literal

from minichat.domain.answer_end import CompletionSignal
from minichat.domain.citations import Cited
from minichat.domain.tool_details import UNTOLD, ToolDetails
from minichat.domain.usage import Usage

ToolName = Literal["file_search", "web_search", "code_interpreter"]
FailureCode = Literal[
    "provider_error",
    "provider_timeout",
    "rate_limited",
    "context_length_exceeded",
    "validation_error",
    "unexpected_tool_use",
]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolActivity:
    """A tool of the provider started, goes on, or is done."""

    name: ToolName
    phase: Literal["start", "progress", "done"]
    details: ToolDetails = UNTOLD


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer is whole."""

    usage: Usage
    response_id: str | None = None
    citations: tuple[Cited, ...] = ()


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The answer is cut or a refusal, as `signal` says; it still counts as an answer."""

    signal: CompletionSignal
    usage: Usage
    response_id: str | None = None
    citations: tuple[Cited, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The provider refused, broke or timed out.

    `diagnostic` is for logs only, redacted by the adapter; clients see the fixed sentence of `code`. Two flags say how
    far the call came; at most one differs from its default:

    - `reached` is False when no request left. Such a turn costs nothing.
    - `refused` is True when the call was refused before the first event of an answer: by a status of 4xx or 5xx, from
      whatever server, or by the first event itself. Nothing was generated that we could have seen.
    - Otherwise a request left, and its outcome is unknown: silence, a broken connection, an answer that had begun.
    """

    code: FailureCode
    diagnostic: str = ""
    usage: Usage = field(default_factory=Usage)
    reached: bool = True
    refused: bool = False


Terminal = Completed | Incomplete | Failed
ProviderChunk = TextDelta | ToolActivity | Terminal
