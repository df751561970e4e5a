"""The bill of a turn: what was estimated, set aside, counted and charged, by which rule, and what it cost to run."""

from dataclasses import dataclass
from typing import Literal

from minichat.domain.settlement import price
from minichat.domain.turn import Turn, TurnState

Rule = Literal["actual", "actual_capped", "estimated", "released"]
EndedBy = Literal["provider", "caller", "stream", "watchdog", "service"]
_OF_THE_PROVIDER = frozenset(
    {"provider_error", "provider_timeout", "rate_limited", "context_length_exceeded", "validation_error"}
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens before anything was sent: `message`, `context`, `images` and `tools` are the input, `answer` the most that
    may come."""

    message: int
    context: int
    images: int
    tools: int
    answer: int


def estimate(turn: Turn) -> Estimate:
    """What was set aside, taken apart: together they are the reserve's tokens."""
    reserve = turn.reserve
    others = reserve.context_tokens + reserve.image_tokens + reserve.tool_tokens
    return Estimate(
        message=max(reserve.tokens - reserve.max_output_tokens - others, 0),
        context=reserve.context_tokens,
        images=reserve.image_tokens,
        tools=reserve.tool_tokens,
        answer=reserve.max_output_tokens,
    )


def rule(turn: Turn) -> Rule | None:
    """By which rule a turn was charged (turns-and-quota 6); None while it runs.

    800 in and 400 out at one micro-credit each against a reserve of 1000 are charged as 1000: `actual_capped`.
    """
    if turn.settlement_method != "actual":
        return turn.settlement_method
    capped = (turn.committed_credits_micro or 0) < counted_micro(turn)
    return "actual_capped" if capped else "actual"


def counted_micro(turn: Turn) -> int:
    """Micro-credits of what the provider counted, whatever was charged; 0 where it counted nothing."""
    return price(turn.reserve, turn.usage.input_tokens, turn.usage.output_tokens)


def ended_by(turn: Turn) -> EndedBy | None:
    """Who ended a turn; None while it runs.

    The provider, with an answer or an error. Its caller, who asked it to stop. The `stream`: its client left, its time
    was over, or its process stopped. The watchdog, or whoever else found its process dead. The service, which could
    not go on.
    """
    if turn.state is TurnState.RUNNING:
        return None
    if turn.terminal_number is not None:
        return "watchdog"
    if turn.state is TurnState.CANCELLED:
        return "stream" if turn.cancel_requested_at is None else "caller"
    of_the_provider = turn.state is TurnState.COMPLETED or turn.error_code in _OF_THE_PROVIDER
    return "provider" if of_the_provider else "service"
