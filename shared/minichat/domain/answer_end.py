"""How an answer ended, and whether it is whole: what is told of it beside its text (contract 3)."""

from dataclasses import dataclass
from typing import Any, Literal

from minichat.domain.text import is_blank

Kind = Literal["complete", "incomplete", "refusal"]
Reason = Literal["length", "content_filter", "pause", "deadline", "cancelled", "interrupted", "other"]
"""Why an answer is cut; a refusal by a filter and not the model has `content_filter`, too. A closed set: any other word
of a provider is `other`."""

DECLINED = "The model declined to answer this message."
"""The text of a refusal that came without words, so that no answer is an empty message."""


@dataclass(frozen=True, slots=True)
class CompletionSignal:
    """How an answer ended. A whole one has no reason, nor has the model's own refusal."""

    kind: Kind
    reason: Reason | None = None

    @property
    def why(self) -> str:
        """One word for why it is not whole."""
        return self.reason or self.kind


COMPLETE = CompletionSignal("complete")
LENGTH = CompletionSignal("incomplete", "length")
FILTERED = CompletionSignal("incomplete", "content_filter")
PAUSED = CompletionSignal("incomplete", "pause")
DEADLINE = CompletionSignal("incomplete", "deadline")
CANCELLED = CompletionSignal("incomplete", "cancelled")
INTERRUPTED = CompletionSignal("incomplete", "interrupted")
CUT = CompletionSignal("incomplete", "other")
REFUSED = CompletionSignal("refusal")
REFUSED_BY_FILTER = CompletionSignal("refusal", "content_filter")


def signalled(signal: CompletionSignal, text: str) -> CompletionSignal:
    """What a provider's signal means for this text: a filter that left no word of an answer has refused it."""
    return REFUSED_BY_FILTER if signal == FILTERED and is_blank(text) else signal


def left_partial(*, cancelled: bool) -> CompletionSignal:
    """How the answer of a turn ended that did not complete: it was cancelled, or its process died."""
    return CANCELLED if cancelled else INTERRUPTED


def told(signal: CompletionSignal | None) -> dict[str, Any] | None:
    """The signal as it is told, everywhere; None where there is no answer."""
    if signal is None:
        return None
    return {"kind": signal.kind} if signal.reason is None else {"kind": signal.kind, "reason": signal.reason}
