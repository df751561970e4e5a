"""What a prompt takes along: pure, deterministic, never over the window (context-attachments-providers 1).

Order: instructions, the summary of the older part, recent messages, the message itself. What must be sent is in, or the
turn is refused; then the summary is added, then recent messages from the newest backwards, while they fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minichat.domain.errors import ContextBudgetExceeded
from minichat.domain.message import Message
from minichat.domain.policy import EstimationBudgets, Model
from minichat.domain.summary import Compression, Summary, target
from minichat.domain.token_estimate import text_tokens


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a chat had when a turn was created, whatever has changed since.

    `messages` are the newest visible ones, oldest first: at least the `limit` that a prompt shows, if there are so
    many. `summary` is one that may be used: a stale one counts as none. `documents_note` says what there is for the
    model to search.
    """

    messages: Sequence[Message] = ()
    summary: Summary | None = None
    limit: int = 10
    documents_note: str = ""

    @property
    def unsummarized(self) -> list[Message]:
        """The messages that the summary does not cover."""
        frontier = "" if self.summary is None else self.summary.frontier.message_id
        return [message for message in self.messages if message.message_id > frontier]

    @property
    def recent(self) -> list[Message]:
        """What a prompt may show. Some models refuse a message without text, and none needs a system's."""
        newest = self.unsummarized[-self.limit :] if self.limit else []
        return [message for message in newest if message.content and message.role != "system"]


@dataclass(frozen=True, slots=True)
class Assembly:
    """What is sent besides the current message, oldest first, and its estimated tokens.

    `estimated_tokens` count everything that is sent; `context_tokens` leave out the current message and its images.
    `truncated` when the summary or a recent message did not fit.
    """

    instructions: str
    summary: Summary | None
    documents_note: str
    history: tuple[Message, ...]
    context_tokens: int
    estimated_tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Space:
    """How a model's window is shared out, in tokens: what the answer and the tools may take; and the images that come
    with the current message."""

    max_output_tokens: int
    surcharges: int = 0
    images: int = 0


def instructions(model: Model, guards: Sequence[str]) -> str:
    """The model's system prompt, then the guard texts of the tools in play, and what else there is."""
    return "\n\n".join(text for text in (model.system_prompt, *guards) if text)


def assemble(model: Model, system_text: str, snapshot: Snapshot, content: str, space: Space) -> Assembly:
    """What fits beside what must be sent: the summary first, then messages from the newest backwards.

    Raises ContextBudgetExceeded when the instructions, the message and its images alone do not fit the window.
    """
    budgets = model.estimation_budgets
    available = model.context_window - space.max_output_tokens - space.surcharges - budgets.fixed_overhead
    system_tokens = _item_tokens(system_text, budgets) if system_text else 0
    current_tokens = _item_tokens(content, budgets) + space.images * budgets.image_token_budget
    left = available - system_tokens - current_tokens
    if left < 0:
        raise ContextBudgetExceeded
    summary = snapshot.summary
    if summary is not None:
        cost = _item_tokens(summary.told, budgets)
        summary, left = (summary, left - cost) if cost <= left else (None, left)
    note = snapshot.documents_note
    if note:
        cost = _item_tokens(note, budgets)
        note, left = (note, left - cost) if cost <= left else ("", left)
    recent, kept = snapshot.recent, 0
    for message in reversed(recent):
        cost = _item_tokens(message.content, budgets)
        # The first that does not fit is the end: an older, shorter one would make a hole in the conversation.
        if cost > left:
            break
        left -= cost
        kept += 1
    return Assembly(
        instructions=system_text,
        summary=summary,
        documents_note=note,
        history=tuple(recent[len(recent) - kept :]),
        context_tokens=available - left - current_tokens,
        estimated_tokens=available - left,
        truncated=kept < len(recent) or summary is not snapshot.summary,
    )


def compression(
    snapshot: Snapshot, assembly: Assembly, *, room: int, threshold_pct: int, verbatim_turns: int
) -> Compression | None:
    """What is to be summarized once the turn of this prompt has completed; None when nothing is.

    It is due when messages were dropped, when more lie after the frontier than a prompt shows, or when there is no
    summary yet and the estimate reached `threshold_pct` of `room`, the window without the answer.
    """
    unsummarized = snapshot.unsummarized
    # The turn's own two messages are there by then.
    crowded = len(unsummarized) + 2 > snapshot.limit
    full = snapshot.summary is None and assembly.estimated_tokens * 100 >= room * threshold_pct
    until = target(unsummarized, verbatim_turns) if assembly.truncated or crowded or full else None
    if until is None:
        return None
    return Compression(None if snapshot.summary is None else snapshot.summary.frontier, until)


def messages_needed(limit: int, verbatim_turns: int) -> int:
    """How many of a chat's newest messages a snapshot needs to answer every question about it."""
    return max(limit, 2 * (verbatim_turns - 1) + 1)


def _item_tokens(text: str, budgets: EstimationBudgets) -> int:
    return text_tokens(len(text.encode()), budgets)
