"""Tokens of a prompt before it is sent, estimated up from its bytes and what it carries besides (turns-and-quota 4)."""

from dataclasses import dataclass

from minichat.domain.errors import InputTooLong
from minichat.domain.policy import EstimationBudgets, Model
from minichat.domain.pricing import ceil_div


@dataclass(frozen=True, slots=True)
class Load:
    """What a prompt carries besides its text."""

    images: int = 0
    file_search: bool = False
    web_search: bool = False
    code_interpreter: bool = False
    context_tokens: int = 0


def text_tokens(utf8_bytes: int, budgets: EstimationBudgets) -> int:
    """Estimated tokens of a text: 4000 bytes with the defaults → 1000 + 100 → with the margin 1210."""
    tokens = ceil_div(utf8_bytes, budgets.bytes_per_token) + budgets.fixed_overhead
    return ceil_div(tokens * (100 + budgets.safety_margin_pct), 100)


def input_tokens(utf8_bytes: int, load: Load, budgets: EstimationBudgets) -> int:
    """Estimated tokens of everything that is sent: 4000 bytes, 2 images, tools and web search → 4210."""
    return (
        text_tokens(utf8_bytes, budgets)
        + load.images * budgets.image_token_budget
        + surcharges(load, budgets)
        + load.context_tokens
    )


def surcharges(load: Load, budgets: EstimationBudgets) -> int:
    """Estimated tokens that the tools in play take."""
    return (
        load.file_search * budgets.tool_surcharge
        + load.web_search * budgets.web_search_surcharge
        + load.code_interpreter * budgets.code_interpreter_surcharge
    )


def check_input(content: str, model: Model) -> None:
    """Refuses a message that the model cannot take in.

    Raises InputTooLong with both numbers, in tokens.
    """
    estimate = text_tokens(len(content.encode()), model.estimation_budgets)
    if estimate > model.max_input_tokens:
        raise InputTooLong(f"The message has about {estimate} tokens; {model.id} takes {model.max_input_tokens}.")
