"""How a turn ended decides what it costs: one function for every path (turns-and-quota 6)."""

from dataclasses import dataclass, field
from typing import Literal

from minichat.domain.answer_end import CompletionSignal
from minichat.domain.citations import Citation
from minichat.domain.failure_codes import CHARGED, RELEASED
from minichat.domain.policy import MAX_TOKENS
from minichat.domain.pricing import credits_micro
from minichat.domain.turn import Reserve, SettlementMethod, ToolCalls, TurnState
from minichat.domain.usage import Usage

BillingOutcome = Literal["completed", "failed", "aborted"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a turn ended, as its finalizer saw it. `text` is what the client was sent; only a completed answer cites,
    and says how it is `cut`.

    `refused` says that the provider said no before the first event of an answer: it has worked on nothing.
    """

    state: TurnState
    error_code: str | None = None
    error_detail: str | None = None
    text: str = ""
    citations: tuple[Citation, ...] = ()
    cut: CompletionSignal | None = None
    usage: Usage = field(default_factory=Usage)
    provider_called: bool = True
    refused: bool = False
    provider_response_id: str | None = None
    tool_calls: ToolCalls = field(default_factory=ToolCalls)
    ttft_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is committed, in micro-credits, and why."""

    outcome: BillingOutcome
    method: SettlementMethod
    committed_micro: int
    actual_micro: int
    overshoot_capped: bool = False


def billing(ending: Ending) -> tuple[BillingOutcome, SettlementMethod]:
    """Outcome and method of an ending: the table of turns-and-quota 6, row by row."""
    measured: SettlementMethod = "actual" if _is_measured(ending) else "estimated"
    match ending.state:
        case TurnState.COMPLETED:
            return "completed", measured
        case TurnState.CANCELLED:
            return "aborted", measured if ending.provider_called else "released"
        case TurnState.FAILED:
            outcome: BillingOutcome = "aborted" if ending.error_code == "orphan_timeout" else "failed"
            if _is_free(ending):
                return outcome, "released"
            return outcome, measured if ending.error_code in CHARGED | RELEASED else "estimated"
        case TurnState.RUNNING:
            raise ValueError("a running turn has no ending")


def _is_measured(ending: Ending) -> bool:
    """Whether the provider's count is of the whole answer: one that broke off may be counted as it began, without a
    token of the text that was told."""
    is_of_the_beginning = ending.state is not TurnState.COMPLETED and ending.text and not ending.usage.output_tokens
    return ending.usage.known and not is_of_the_beginning


def _is_free(ending: Ending) -> bool:
    """Whether a turn failed before its provider did any work; text that was sent is never free."""
    if not ending.provider_called:
        return True
    if ending.text:
        return False
    return ending.error_code in RELEASED or (ending.refused and not ending.usage.known)


def settle(ending: Ending, reserve: Reserve, overshoot_tolerance_pct: int) -> Settlement:
    """What the turn costs, at the prices that it was admitted with.

    Usage 800 + 250 against a reserve of 1000 tokens / 10_000 micro at 1x is within 110 %: 1050. Usage 1000 + 500 is
    not: the smaller of 1500 and 10_000, flagged. Without usage the text that was sent counts, at the model's bytes per
    token: 4000 bytes of it are 1000 tokens.
    """
    outcome, method = billing(ending)
    if method == "released":
        return Settlement(outcome, method, 0, 0)
    if method == "estimated":
        estimated_input = max(reserve.tokens - reserve.max_output_tokens, 0)
        sent = -(-len(ending.text.encode()) // reserve.bytes_per_token)
        worth = price(reserve, estimated_input, max(sent, reserve.generation_floor))
        committed = min(worth, reserve.credits_micro)
        return Settlement(outcome, method, committed, committed)
    actual = price(reserve, ending.usage.input_tokens, ending.usage.output_tokens)
    used_tokens = ending.usage.input_tokens + ending.usage.output_tokens
    if used_tokens * 100 <= reserve.tokens * overshoot_tolerance_pct:
        return Settlement(outcome, method, actual, actual)
    return Settlement(outcome, method, min(actual, reserve.credits_micro), actual, overshoot_capped=True)


def price(reserve: Reserve, input_tokens: int, output_tokens: int) -> int:
    """Micro-credits of so many tokens, at the prices of a turn's start."""
    # A count beyond the bounds of the arithmetic can only be a provider's mistake; the turn must end all the same.
    exact = min(input_tokens, MAX_TOKENS), min(output_tokens, MAX_TOKENS)
    return credits_micro(*exact, reserve.input_multiplier, reserve.output_multiplier)
