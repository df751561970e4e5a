"""Why an answer ended: which of a provider's finish reasons is a good end, which a cut, and which a failure.

Known reasons are listed. An unknown one counts as a good end: the text is there, and throwing it away would be worse
than accepting an end that was none. It is logged, so that somebody adds it to a list.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from minichat.domain.answer_end import REFUSED, CompletionSignal
from minichat.domain.citations import Cited
from minichat.domain.usage import Usage
from minichat.providers.chunks import Completed, Failed, FailureCode, Incomplete, Terminal
from minichat.providers.diagnostics import redact_diagnostic

NOT_OFFERED = "the model asked for a tool that it was not offered"
NO_END = "the stream ended without a terminal event"


@dataclass(frozen=True, slots=True)
class Ends:
    """The finish reasons of one API, in lower case.

    `cut` maps each to the signal for clients, `failed` to the words for the logs.
    """

    good: frozenset[str]
    cut: Mapping[str, CompletionSignal]
    failed: Mapping[str, str]

    def terminal(
        self,
        reason: str | None,
        usage: Usage,
        response_id: str | None = None,
        citations: tuple[Cited, ...] = (),
        *,
        refused: bool = False,
    ) -> Terminal:
        """The end of an answer with this finish reason; without one it broke off.

        `refused`: the text of the answer is a refusal, which a good end alone does not show.
        """
        word = (reason or "").casefold()
        if not word:
            return Failed("provider_error", NO_END, usage)
        if word in self.failed:
            problem = self.failed[word]
            code: FailureCode = "unexpected_tool_use" if problem == NOT_OFFERED else "provider_error"
            return Failed(code, f"{word}: {problem}", usage)
        if word in self.cut:
            return Incomplete(self.cut[word], usage, response_id, citations)
        if word not in self.good:
            from minichat.observability import logger  # noqa: PLC0415  more than an adapter costs, for a rare event

            logger.warning("an answer ended with an unknown word", extra={"reason": redact_diagnostic(word)})
        return (
            Incomplete(REFUSED, usage, response_id, citations) if refused else Completed(usage, response_id, citations)
        )
