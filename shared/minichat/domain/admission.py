"""Whether a message may be answered, by which model, and what is set aside for it: pure (turns-and-quota 2, 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from minichat.domain.context import Assembly, assemble, instructions
from minichat.domain.errors import ModelNotFound, QuotaExceeded, WebSearchDisabled
from minichat.domain.message import Message
from minichat.domain.policy import Model, Policy
from minichat.domain.quota import Load, check_input, input_tokens, output_cap, reserve
from minichat.domain.turn import Reserve


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller wants answered."""

    model_id: str
    content: str
    recent: Sequence[Message]
    web_search: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What the deployment allows, whatever the policy says."""

    max_output_tokens: int
    web_search_guard: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer may be made: by this model, with this prompt, against this reserve."""

    model: Model
    assembly: Assembly
    reserve: Reserve
    web_search: bool


def admit(policy: Policy, wish: Wish, limits: Limits, now: datetime) -> Admission:
    """What a message is admitted with; the estimate is of what will really be sent.

    Raises, in this order: WebSearchDisabled, QuotaExceeded (no model is left), InputTooLong, ContextBudgetExceeded.
    """
    if wish.web_search and policy.kill_switches.disable_web_search:
        raise WebSearchDisabled
    try:
        model = policy.model(wish.model_id)
    except ModelNotFound:
        raise QuotaExceeded from None
    check_input(wish.content, model)
    # A model that cannot search answers without: the wish is not a condition.
    searching = wish.web_search and model.general_config.tool_support.web_search
    budgets = model.estimation_budgets
    max_output = output_cap(model, limits.max_output_tokens)
    assembly = assemble(
        model,
        instructions(model, [limits.web_search_guard] if searching else []),
        wish.recent,
        wish.content,
        kept_free=max_output + searching * budgets.web_search_surcharge,
    )
    load = Load(web_search=searching, context_tokens=assembly.context_tokens)
    estimate = input_tokens(len(wish.content.encode()), load, budgets)
    set_aside = reserve(model, estimate, max_output, policy.policy_version, now)
    return Admission(model, assembly, set_aside, searching)
