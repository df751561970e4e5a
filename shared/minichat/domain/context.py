"""Which messages a prompt takes along: pure, deterministic, never over the window (context-attachments-providers 1)."""

from collections.abc import Sequence
from dataclasses import dataclass

from minichat.domain.errors import ContextBudgetExceeded
from minichat.domain.message import Message
from minichat.domain.policy import EstimationBudgets, Model
from minichat.domain.quota import text_tokens


@dataclass(frozen=True, slots=True)
class Assembly:
    """What is sent, oldest first, and its estimated tokens besides those of the current message."""

    instructions: str
    history: tuple[Message, ...]
    context_tokens: int
    truncated: bool


def instructions(model: Model, guards: Sequence[str]) -> str:
    """The model's system prompt, then the guard texts of the tools in play."""
    return "\n\n".join(text for text in (model.system_prompt, *guards) if text)


def assemble(model: Model, system_text: str, recent: Sequence[Message], content: str, *, kept_free: int) -> Assembly:
    """The newest of `recent` (oldest first) that fit beside what must be sent.

    `kept_free` is what the answer and the tools may take, in tokens.

    Raises ContextBudgetExceeded when the instructions and the message alone do not fit the window.
    """
    budgets = model.estimation_budgets
    left = model.context_window - kept_free - budgets.fixed_overhead
    system_tokens = _item_tokens(system_text, budgets) if system_text else 0
    left -= system_tokens + _item_tokens(content, budgets)
    if left < 0:
        raise ContextBudgetExceeded
    history: list[Message] = []
    context_tokens = system_tokens
    for message in reversed(recent):
        cost = _item_tokens(message.content, budgets)
        if cost > left:
            break
        left -= cost
        context_tokens += cost
        history.append(message)
    return Assembly(system_text, tuple(reversed(history)), context_tokens, truncated=len(history) < len(recent))


def _item_tokens(text: str, budgets: EstimationBudgets) -> int:
    return text_tokens(len(text.encode()), budgets)
