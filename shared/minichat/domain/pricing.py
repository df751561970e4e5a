"""What tokens cost, in whole micro-credits: every component of a price is rounded up (turns-and-quota 4)."""

from datetime import datetime

from minichat.domain.policy import MAX_MULTIPLIER, MAX_TOKENS, Model
from minichat.domain.quota_periods import periods
from minichat.domain.turn import Reserve

TOKENS_PER_MULTIPLIER = 1_000_000
"""A multiplier says micro-credits per this many tokens: 1_000_000 is one micro-credit per token."""


class CreditOverflow(ArithmeticError):
    """Tokens or a multiplier outside the bounds within which credits are exact."""


def credits_micro(input_tokens: int, output_tokens: int, input_multiplier: int, output_multiplier: int) -> int:
    """The price in micro-credits, each component rounded up: 1000 in, 500 out at 1_000_000 / 3_000_000 → 2500.

    Raises CreditOverflow outside 0..10_000_000 tokens and 1..10_000_000_000 micro-credits per million.
    """
    for tokens in (input_tokens, output_tokens):
        if not 0 <= tokens <= MAX_TOKENS:
            raise CreditOverflow(f"{tokens} tokens")
    for multiplier in (input_multiplier, output_multiplier):
        if not 1 <= multiplier <= MAX_MULTIPLIER:
            raise CreditOverflow(f"multiplier {multiplier}")
    return ceil_div(input_tokens * input_multiplier, TOKENS_PER_MULTIPLIER) + ceil_div(
        output_tokens * output_multiplier, TOKENS_PER_MULTIPLIER
    )


def output_cap(model: Model, configured: int, wanted: int | None = None) -> int:
    """The hard cap of output tokens: the smallest of the model's, the deployment's, and what is wanted at most."""
    return min(model.max_output_tokens, configured, *(() if wanted is None else (wanted,)))


def reserve(model: Model, estimated_input: int, max_output_tokens: int, policy_version: int, now: datetime) -> Reserve:
    """The worst case of a turn on `model`: 1210 in, 4096 out at 1_000_000 / 3_000_000 → 13_498 micro-credits."""
    daily, monthly = periods(now)
    multipliers = model.input_tokens_credit_multiplier_micro, model.output_tokens_credit_multiplier_micro
    return Reserve(
        tokens=estimated_input + max_output_tokens,
        max_output_tokens=max_output_tokens,
        credits_micro=credits_micro(estimated_input, max_output_tokens, *multipliers),
        policy_version=policy_version,
        selected_model=model.id,
        effective_model=model.id,
        generation_floor=model.estimation_budgets.minimal_generation_floor,
        input_multiplier=multipliers[0],
        output_multiplier=multipliers[1],
        daily_period=daily,
        monthly_period=monthly,
        premium=model.tier == "premium",
        bytes_per_token=model.estimation_budgets.bytes_per_token,
    )


def ceil_div(value: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-value // divisor)
