"""Why an answer ended: which of a provider's words is a good end, which a cut, and which a failure.

Good ends and failures are known by their names. A word that is neither is a good end of tomorrow: the text is there,
and to throw it away would be worse than to keep an end that was none. It is logged, for somebody to give it its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from minichat.domain.citations import Cited
from minichat.domain.completion import REFUSED, CompletionSignal
from minichat.domain.usage import Usage
from minichat.providers.chunks import Completed, Failed, FailureCode, Incomplete, Terminal
from minichat.providers.diagnostics import redact_diagnostic

NOT_OFFERED = "the model asked for a tool that it was not offered"
NO_END = "the stream ended without a terminal event"


@dataclass(frozen=True, slots=True)
class Ends:
    """The words with which one API ends its answers, in lower case.

    `cut` has for each word what is told of it, `failed` what goes to the logs.
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
        """The end of an answer that gave this reason for it; without a reason it broke off.

        `refused` says that the text of the answer is a refusal, which a good end does not say by itself.
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
