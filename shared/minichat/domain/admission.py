"""Whether a message may be answered, by which model, and what is set aside for it: pure (turns-and-quota 2, 4)."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from minichat.domain.context import Assembly, Snapshot, Space, assemble, instructions
from minichat.domain.errors import QuotaExceeded, WebSearchDisabled
from minichat.domain.policy import Model, Policy
from minichat.domain.quota import Load, check_input, input_tokens, output_cap, reserve
from minichat.domain.standing import Standing
from minichat.domain.turn import Reserve


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller wants answered."""

    model_id: str
    content: str
    snapshot: Snapshot = field(default_factory=Snapshot)
    web_search: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What the deployment allows, whatever the policy says."""

    max_output_tokens: int
    web_search_guard: str = ""
    web_search_daily_quota: int = 75


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer may be made: by this model, with this prompt, against this reserve."""

    model: Model
    assembly: Assembly
    reserve: Reserve
    web_search: bool


def admit(policy: Policy, wish: Wish, standing: Standing, limits: Limits, now: datetime) -> Admission:
    """What a message is admitted with, by the first model of the cascade whose worst case fits the user's quota.

    The estimate is of what will really be sent, with the model that would really run.

    Raises WebSearchDisabled, QuotaExceeded (scope `web_search` or `tokens`), InputTooLong, ContextBudgetExceeded.
    """
    if wish.web_search and policy.kill_switches.disable_web_search:
        raise WebSearchDisabled
    if wish.web_search and standing.daily.web_search_calls >= limits.web_search_daily_quota:
        raise QuotaExceeded("web_search")
    for model, reason in _cascade(policy, wish.model_id):
        admission = _admission(policy, wish, model, limits, now)
        if reason is not None:
            admission = _downgraded(admission, wish.model_id, reason)
        if standing.fits(admission.reserve):
            return admission
    raise QuotaExceeded


def _cascade(policy: Policy, selected_id: str) -> Iterator[tuple[Model, str | None]]:
    """Models that may answer, best first, each with the reason why it is not the selected one."""
    selected = next((model for model in policy.model_catalog if model.id == selected_id), None)
    switches = policy.kill_switches
    reason: str | None = None
    # A model that is gone from the catalog cascades as a disabled one of the standard tier.
    for tier in ("premium", "standard") if selected is not None and selected.tier == "premium" else ("standard",):
        if tier == "premium" and switches.force_standard_tier:
            reason = "force_standard_tier"
        elif tier == "premium" and switches.disable_premium_tier:
            reason = "disable_premium_tier"
        elif selected is not None and tier == selected.tier and selected.enabled:
            yield selected, None
            reason = "premium_quota_exhausted"
        elif (model := policy.default_of(tier)) is not None:
            yield model, reason or "model_disabled"
            reason = reason or "model_disabled"


def _downgraded(admission: Admission, selected_id: str, reason: str) -> Admission:
    told = replace(admission.reserve, selected_model=selected_id, decision="downgrade", downgrade_reason=reason)
    return replace(admission, reserve=told)


def _admission(policy: Policy, wish: Wish, model: Model, limits: Limits, now: datetime) -> Admission:
    check_input(wish.content, model)
    # A model that cannot search answers without: the wish is not a condition.
    searching = wish.web_search and model.general_config.tool_support.web_search
    budgets = model.estimation_budgets
    max_output = output_cap(model, limits.max_output_tokens)
    assembly = assemble(
        model,
        instructions(model, [limits.web_search_guard] if searching else []),
        wish.snapshot,
        wish.content,
        Space(max_output, surcharges=searching * budgets.web_search_surcharge),
    )
    load = Load(web_search=searching, context_tokens=assembly.context_tokens)
    estimate = input_tokens(len(wish.content.encode()), load, budgets)
    set_aside = reserve(model, estimate, max_output, policy.policy_version, now)
    return Admission(model, assembly, set_aside, searching)
