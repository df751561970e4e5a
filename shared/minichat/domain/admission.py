"""Whether a message may be answered, by which model, and what is set aside for it: pure (turns-and-quota 2, 4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from minichat.domain import doc_summary
from minichat.domain.attachment import Attachment
from minichat.domain.context import Assembly, Snapshot, Space, assemble, instructions
from minichat.domain.day_counts import DayCounts, lacking
from minichat.domain.errors import ImagesDisabled, QuotaExceeded, UnsupportedMedia, UsedUp, WebSearchDisabled
from minichat.domain.message import NOTHING_ASIDE, Aside
from minichat.domain.policy import Model, Policy
from minichat.domain.pricing import output_cap, reserve
from minichat.domain.quota_left import QuotaUse
from minichat.domain.token_estimate import Load, check_input, input_tokens, surcharges
from minichat.domain.tool_allowance import most_calls, offered, told_of_calls
from minichat.domain.tools import Document, Tools, sees, tools_of
from minichat.domain.turn import Reserve, ToolCalls


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller wants answered: a message with its images, in a chat with these documents."""

    model_id: str
    content: str
    snapshot: Snapshot = field(default_factory=Snapshot)
    web_search: bool = False
    images: Sequence[Attachment] = ()
    documents: Sequence[Document] = ()
    aside: Aside = NOTHING_ASIDE


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """What the deployment allows, whatever the policy says. `file_providers` are those that have files."""

    max_output_tokens: int
    web_search_guard: str = ""
    file_search_guard: str = ""
    calls_per_message: ToolCalls = field(default_factory=lambda: ToolCalls(2, 10, 10))
    per_day: DayCounts = field(default_factory=lambda: DayCounts(75, 50, 200, 50))
    file_providers: frozenset[str] = frozenset()
    documents_note_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer may be made: by this model, with this prompt and these images and tools, against this reserve.

    Holds while all turns of the user's day together set aside no more than `per_day`.
    """

    model: Model
    assembly: Assembly
    reserve: Reserve
    tools: Tools = field(default_factory=Tools)
    images: tuple[Attachment, ...] = ()
    per_day: DayCounts = field(default_factory=DayCounts)


def admit(policy: Policy, wish: Wish, quota_use: QuotaUse, limits: PromptLimits, now: datetime) -> Admission:
    """The admission of a message to the first model of the cascade whose worst case fits the user's quota.

    The estimate is of what will really be sent, with the model that would really run.

    A message with images is refused when the selected model cannot see them; a substitute that cannot is passed over.

    Raises WebSearchDisabled, ImagesDisabled, QuotaExceeded (scope `web_search`, `image_inputs`, `code_interpreter`,
    `file_search` or `tokens`), UnsupportedMedia, InputTooLong, ContextBudgetExceeded.
    """
    _check_switches(policy, wish)
    wanted = DayCounts(web_search=int(wish.web_search), image_inputs=len(wish.images))
    if (none_left := lacking(quota_use.daily.counts, wanted, limits.per_day, now)) is not None:
        raise QuotaExceeded(none_left)
    blind = False
    weighed: UsedUp | None = None
    for model, reason in _cascade(policy, wish.model_id):
        if not sees(model, wish.images, limits.file_providers):
            if reason is None:
                raise UnsupportedMedia
            blind = True
            continue
        admission = _admission(policy, wish, model, limits, now)
        if reason is not None:
            admission = _downgraded(admission, wish.model_id, reason)
        if quota_use.fits(admission.reserve):
            return _with_calls(admission, quota_use, limits, now)
        weighed = quota_use.lacks(admission.reserve, now)
    if weighed is None:
        raise UnsupportedMedia if blind else QuotaExceeded
    raise QuotaExceeded(weighed)


def readmit(policy: Policy, wish: Wish, reserve: Reserve, limits: PromptLimits, now: datetime) -> Admission | None:
    """The admission of a message whose `reserve` is set aside already; None when the policy has since changed so that
    this is not enough, or no longer allowed.

    Raises InputTooLong, ContextBudgetExceeded.
    """
    model = next((model for model in policy.enabled_models() if model.id == reserve.effective_model), None)
    switches = policy.kill_switches
    switched_off = (wish.web_search and switches.disable_web_search) or (wish.images and switches.disable_images)
    if model is None or switched_off or not sees(model, wish.images, limits.file_providers):
        return None
    admission = _admission(policy, wish, model, limits, now)
    worst, tools = admission.reserve, admission.tools
    if worst.tokens > reserve.tokens or worst.credits_micro > reserve.credits_micro:
        return None
    set_aside = reserve.day_counts
    if any(not getattr(set_aside, tool) for tool in offered(tools)):
        return None
    return _against(admission, reserve)


def _check_switches(policy: Policy, wish: Wish) -> None:
    """What is refused whichever model answers."""
    if wish.web_search and policy.kill_switches.disable_web_search:
        raise WebSearchDisabled
    if wish.images and policy.kill_switches.disable_images:
        raise ImagesDisabled


def _with_calls(admission: Admission, quota_use: QuotaUse, limits: PromptLimits, now: datetime) -> Admission:
    """The admission with its images and the most tool calls set aside. Raises QuotaExceeded."""
    used, per_day, per_message = quota_use.daily.counts, limits.per_day, limits.calls_per_message
    calls = most_calls(admission.tools, per_message, used, per_day, now)
    reserve = replace(admission.reserve, image_inputs=len(admission.images), **calls)
    return _against(replace(admission, per_day=per_day), reserve)


def _against(admission: Admission, reserve: Reserve) -> Admission:
    """The admission against this reserve, of whose calls its model is told."""
    return replace(admission, reserve=reserve, model=told_of_calls(admission.model, reserve, admission.tools))


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


def _downgraded(admission: Admission, selected_id: str, reason: str) -> Admission:
    downgraded = replace(admission.reserve, selected_model=selected_id, decision="downgrade", downgrade_reason=reason)
    return replace(admission, reserve=downgraded)


def _admission(policy: Policy, wish: Wish, model: Model, limits: PromptLimits, now: datetime) -> Admission:
    check_input(wish.content, model)
    documents = [one for one in wish.documents if one.provider in limits.file_providers]
    tools = tools_of(model, documents, policy.kill_switches, web_search=wish.web_search)
    load = Load(len(wish.images), bool(tools.vector_stores), tools.web_search, bool(tools.code_files))
    guards = [limits.web_search_guard] * load.web_search + [limits.file_search_guard] * load.file_search
    budgets = model.estimation_budgets
    max_output = output_cap(model, limits.max_output_tokens, wish.aside.max_output_tokens)
    searched = [one for one in documents if one.vector_store_id in tools.vector_stores]
    note = doc_summary.note(searched, max_bytes=limits.documents_note_bytes)
    assembly = assemble(
        model,
        instructions(model, [*guards, wish.aside.instructions]),
        replace(wish.snapshot, documents_note=note),
        wish.content,
        Space(max_output, surcharges(load, budgets), load.images),
    )
    load = replace(load, context_tokens=assembly.context_tokens)
    estimate = input_tokens(len(wish.content.encode()), load, budgets)
    set_aside = replace(
        reserve(model, estimate, max_output, policy.policy_version, now),
        context_tokens=assembly.context_tokens,
        image_tokens=load.images * budgets.image_token_budget,
        tool_tokens=surcharges(load, budgets),
    )
    return Admission(model, assembly, set_aside, tools, tuple(wish.images))
