"""What has come of an answer so far, and which end it has when the provider did not finish it.

What an end costs is in domain.settlement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from minichat.domain.answer_end import DEADLINE, CompletionSignal
from minichat.domain.citations import Cited, CitedFile, citations
from minichat.domain.settlement import Ending
from minichat.domain.turn import ToolCalls, TurnState
from minichat.domain.usage import Usage


@dataclass(slots=True)
class AnswerSoFar:
    """What has come from the provider so far; `ending` once it has finished.

    `cut` is set when neither a person nor the provider ended the answer: its time was up, or its process must stop.
    `unwanted_since`: from when on nobody wanted more of it.
    """

    texts: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    response_id: str | None = None
    cited: tuple[Cited, ...] = ()
    tool_calls: dict[str, int] = field(default_factory=dict)
    called: bool = False
    first_text_at: datetime | None = None
    ending: Ending | None = None
    cut: CompletionSignal | None = None
    unwanted_since: datetime | None = None

    @property
    def text(self) -> str:
        """The text so far, as it was told."""
        return "".join(self.texts)


def broken_off(answer: AnswerSoFar) -> Ending:
    """The end of an answer that the provider did not end. A user who did not ask for it keeps the text as a cut answer,
    or gets a failure if there is no text."""
    if answer.cut is None:
        return Ending(TurnState.CANCELLED)
    if answer.texts:
        return Ending(TurnState.COMPLETED, cut=answer.cut)
    return Ending(TurnState.FAILED, "provider_timeout" if answer.cut == DEADLINE else "interrupted")


def with_answer(ending: Ending, answer: AnswerSoFar, files: Mapping[str, CitedFile], started_at: datetime) -> Ending:
    """The end, with everything that has come of the answer. It may cite `files`; `started_at` is its turn's."""
    ttft = answer.first_text_at - started_at if answer.first_text_at else None
    text = answer.text
    return replace(
        ending,
        text=text,
        citations=citations(answer.cited, files, text) if ending.state is TurnState.COMPLETED else (),
        usage=answer.usage,
        provider_called=answer.called,
        provider_response_id=answer.response_id,
        tool_calls=ToolCalls(**answer.tool_calls),
        # The clock may have been corrected between the two readings.
        ttft_ms=max(int(ttft.total_seconds() * 1000), 0) if ttft is not None else None,
    )
