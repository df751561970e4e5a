"""The cascade: which model answers, why another one does, and when none may."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from minichat.domain import errors
from minichat.domain.admission import Admission, PromptLimits, Wish, admit, readmit
from minichat.domain.day_counts import DayCounts
from minichat.domain.identity import AttachmentId
from minichat.domain.policy import KillSwitches, Policy
from minichat.domain.quota_left import Committed, QuotaUse, remaining
from minichat.domain.quota_periods import next_reset
from minichat.domain.tools import Document
from minichat.http.response_models import quota_status
from tests.support.domain.builders import NOW, a_model, a_policy, some_limits

PREMIUM = a_model(
    id="large",
    tier="premium",
    input_tokens_credit_multiplier_micro=10_000_000,
    output_tokens_credit_multiplier_micro=30_000_000,
    general_config={"tool_support": {"web_search": True}},
)
STANDARD = a_model(id="small", preference={"is_default": True, "sort_order": 5})
OTHER = a_model(id="other", preference={"sort_order": 1})
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
NOTHING = QuotaUse(some_limits())
DEPLOYMENT = PromptLimits(max_output_tokens=100)


def _admitted(policy: Policy, model: str = "large", quota_use: QuotaUse = NOTHING, **wish: Any) -> Admission:
    return admit(policy, Wish(model, "x" * 4000, **wish), quota_use, DEPLOYMENT, NOW)


def test_the_selected_model_answers_when_nothing_is_against_it() -> None:
    reserve = _admitted(a_policy(PREMIUM, STANDARD)).reserve
    assert (reserve.effective_model, reserve.decision, reserve.premium) == ("large", "allow", True)
    assert (reserve.tokens, reserve.credits_micro) == (1310, 12_100 + 3000)


@pytest.mark.parametrize(
    ("switches", "reason"),
    [
        ({"force_standard_tier": True}, "force_standard_tier"),
        ({"disable_premium_tier": True}, "disable_premium_tier"),
        ({"force_standard_tier": True, "disable_premium_tier": True}, "force_standard_tier"),
    ],
)
@pytest.mark.holds("turns.cascade")
def test_switches_send_premium_chats_to_the_standard_default(switches: dict[str, bool], reason: str) -> None:
    policy = a_policy(PREMIUM, OTHER, STANDARD, kill_switches=KillSwitches(**switches))
    reserve = _admitted(policy).reserve
    assert (reserve.effective_model, reserve.selected_model) == ("small", "large")
    assert (reserve.decision, reserve.downgrade_reason, reserve.premium) == ("downgrade", reason, False)


@pytest.mark.parametrize("period", ["daily", "monthly"])
@pytest.mark.holds("turns.cascade")
def test_a_used_up_premium_quota_downgrades_with_the_reserve_of_the_model_that_runs(period: str) -> None:
    limits = some_limits(premium=100_000)
    used = Committed(total=99_000, premium=99_000)
    full = QuotaUse(limits, daily=used) if period == "daily" else QuotaUse(limits, monthly=used)
    reserve = _admitted(a_policy(PREMIUM, STANDARD), quota_use=full).reserve
    assert (reserve.effective_model, reserve.downgrade_reason) == ("small", "premium_quota_exhausted")
    assert reserve.credits_micro == 1210 + 300


@pytest.mark.holds("turns.cascade")
def test_a_disabled_model_is_replaced_by_its_tiers_default() -> None:
    gone = a_model(id="gone", enabled=False)
    reserve = _admitted(a_policy(gone, OTHER, STANDARD), "gone").reserve
    assert (reserve.effective_model, reserve.downgrade_reason) == ("small", "model_disabled")


def test_a_model_that_left_the_catalog_is_replaced_too() -> None:
    assert _admitted(a_policy(STANDARD), "never heard of").reserve.downgrade_reason == "model_disabled"


@pytest.mark.parametrize("room", [1509, 0])
def test_without_room_for_the_worst_case_nobody_answers(room: int) -> None:
    limits = some_limits(total=10_000)
    full = QuotaUse(limits, daily=Committed(total=10_000 - room))
    with pytest.raises(errors.QuotaExceeded) as refusal:
        _admitted(a_policy(STANDARD), "small", full)
    assert refusal.value.limit.scope == "tokens"


def test_room_for_exactly_the_worst_case_is_enough() -> None:
    limits = some_limits(total=10_000)
    full = QuotaUse(limits, daily=Committed(total=10_000 - 1510), monthly=Committed(total=10_000 - 1510))
    assert _admitted(a_policy(STANDARD), "small", full).reserve.credits_micro == 1510


@pytest.mark.holds("turns.premium-in-both")
def test_a_standard_turn_does_not_count_against_premium() -> None:
    full = QuotaUse(some_limits(premium=0))
    assert _admitted(a_policy(STANDARD), "small", full).reserve.decision == "allow"


def test_web_search_is_limited_only_where_it_is_asked_for() -> None:
    searched = QuotaUse(some_limits(), daily=Committed(counts=DayCounts(web_search=75)))
    assert _admitted(a_policy(PREMIUM), quota_use=searched).tools.web_search is False
    with pytest.raises(errors.QuotaExceeded) as refusal:
        _admitted(a_policy(PREMIUM), quota_use=searched, web_search=True)
    assert refusal.value.limit.scope == "web_search"
    with pytest.raises(errors.WebSearchDisabled):
        _admitted(a_policy(PREMIUM, kill_switches=KillSwitches(disable_web_search=True)), web_search=True)


@pytest.mark.parametrize(("used", "may"), [(0, 2), (73, 2), (74, 1)])
def test_a_turn_sets_aside_the_searches_that_it_may_make_and_no_more_than_are_left(used: int, may: int) -> None:
    searched = QuotaUse(some_limits(), daily=Committed(counts=DayCounts(web_search=used)))
    admission = _admitted(a_policy(PREMIUM), quota_use=searched, web_search=True)
    assert (admission.reserve.web_search_calls, admission.reserve.code_interpreter_calls) == (may, 0)
    assert admission.model.max_tool_calls == may
    assert _admitted(a_policy(PREMIUM), quota_use=searched).reserve.web_search_calls == 0


def test_a_turn_that_another_process_goes_on_with_may_make_the_calls_that_were_set_aside() -> None:
    policy, wish = a_policy(PREMIUM), Wish("large", "x" * 4000, web_search=True)
    searched = QuotaUse(some_limits(), daily=Committed(counts=DayCounts(web_search=74)))
    began = admit(policy, wish, searched, DEPLOYMENT, NOW).reserve
    again = readmit(policy, wish, began, DEPLOYMENT, NOW)
    assert again is not None
    assert (again.reserve, again.model.max_tool_calls) == (began, 1)
    # Of an earlier version's turn nothing is set aside.
    assert readmit(policy, wish, replace(began, web_search_calls=0), DEPLOYMENT, NOW) is None


def test_a_turn_sets_aside_nothing_for_a_tool_that_its_model_does_not_have() -> None:
    reserve = _admitted(a_policy(STANDARD), "small", web_search=True).reserve
    assert (reserve.web_search_calls, reserve.code_interpreter_calls) == (0, 0)


@pytest.mark.parametrize(("used", "may"), [(0, 10), (41, 9), (49, 1)])
def test_calls_of_the_interpreter_are_set_aside_where_it_is_offered(used: int, may: int) -> None:
    sheet = Document(AttachmentId("a"), "a.xlsx", XLSX, "openai", "file-1", None)
    model = a_model(id="large", general_config={"tool_support": {"code_interpreter": True}}, max_tool_calls=5)
    quota_use = QuotaUse(some_limits(), daily=Committed(counts=DayCounts(code_interpreter=used)))
    limits = PromptLimits(100, file_providers=frozenset({"openai"}))
    admission = admit(a_policy(model), Wish("large", "x", documents=[sheet]), quota_use, limits, NOW)
    assert (admission.reserve.code_interpreter_calls, admission.model.max_tool_calls) == (may, min(may, 5))
    full = QuotaUse(some_limits(), daily=Committed(counts=DayCounts(code_interpreter=50)))
    with pytest.raises(errors.QuotaExceeded) as refusal:
        admit(a_policy(model), Wish("large", "x", documents=[sheet]), full, limits, NOW)
    assert refusal.value.limit.scope == "code_interpreter"


@pytest.mark.parametrize(
    ("used", "percentage", "warning", "exhausted"),
    [(79, 21, False, False), (80, 20, True, False), (81, 19, True, False), (100, 0, True, True), (150, 0, True, True)],
)
@pytest.mark.holds("turns.remaining")
def test_warnings_begin_at_the_threshold(used: int, percentage: int, warning: bool, exhausted: bool) -> None:
    quota_use = QuotaUse(some_limits(premium=0, total=100), daily=Committed(total=used))
    daily, monthly = remaining(quota_use, 80, NOW)
    assert (daily.bucket, daily.period, monthly.period) == ("total", "daily", "monthly")
    assert (daily.percentage, daily.warning, daily.exhausted) == (percentage, warning, exhausted)


@pytest.mark.holds("turns.remaining")
def test_less_than_one_per_cent_is_exhausted() -> None:
    quota_use = QuotaUse(some_limits(premium=0, total=1000), daily=Committed(total=990), monthly=Committed(total=991))
    assert [one.exhausted for one in remaining(quota_use, 80, NOW)] == [False, True]


def test_of_a_limit_that_is_overdrawn_nothing_is_left() -> None:
    overdrawn = QuotaUse(some_limits(premium=0, total=1000), daily=Committed(total=1000), monthly=Committed(total=1001))
    shown = quota_status(remaining(overdrawn, 80, NOW), [], 80)
    assert [one.remaining_credits_micro for tier in shown.tiers for one in tier.periods] == [0, 0]


def test_of_the_smallest_limit_all_is_left_until_something_is_used() -> None:
    left = remaining(QuotaUse(some_limits(premium=1, total=1)), 80, NOW)
    assert [(one.percentage, one.exhausted) for one in left] == [(100, False)] * 4


@pytest.mark.holds("turns.reset")
def test_periods_reset_at_utc_midnight_and_on_the_first() -> None:
    noon = datetime(2026, 12, 31, 12, tzinfo=UTC)
    assert next_reset("daily", noon.replace(day=21)).isoformat() == "2026-12-22T00:00:00+00:00"
    for day, first in (
        (noon, "2027-01-01"),
        (noon.replace(month=1), "2026-02-01"),
        (noon.replace(month=10), "2026-11-01"),
        (noon.replace(month=11, day=30), "2026-12-01"),
    ):
        assert next_reset("monthly", day).isoformat() == f"{first}T00:00:00+00:00"


def test_a_turn_goes_on_with_its_model_and_its_reserve_whatever_is_chosen_now() -> None:
    first = _admitted(a_policy(PREMIUM, STANDARD)).reserve
    later = a_policy(OTHER, STANDARD, PREMIUM, kill_switches=KillSwitches(force_standard_tier=True))
    again = readmit(later, Wish("large", "x" * 4000), first, DEPLOYMENT, NOW)
    assert again is not None
    assert (again.model.id, again.reserve) == ("large", first)


@pytest.mark.parametrize(
    "policy",
    [
        a_policy(STANDARD),
        a_policy(PREMIUM.model_copy(update={"enabled": False}), STANDARD),
        a_policy(PREMIUM.model_copy(update={"output_tokens_credit_multiplier_micro": 40_000_000}), STANDARD),
        a_policy(PREMIUM.model_copy(update={"max_output_tokens": 4096, "system_prompt": "x" * 400}), STANDARD),
        a_policy(PREMIUM, STANDARD, kill_switches=KillSwitches(disable_web_search=True)),
    ],
    ids=["gone", "disabled", "dearer", "longer", "switched off"],
)
def test_a_turn_does_not_go_on_where_its_reserve_is_not_enough_or_its_wish_not_allowed(policy: Policy) -> None:
    wish = Wish("large", "x" * 4000, web_search=True)
    first = admit(a_policy(PREMIUM, STANDARD), wish, NOTHING, DEPLOYMENT, NOW).reserve
    assert readmit(a_policy(PREMIUM, STANDARD), wish, first, DEPLOYMENT, NOW) is not None
    assert readmit(policy, wish, first, DEPLOYMENT, NOW) is None


def _refusal(quota_use: QuotaUse) -> errors.UsedUp:
    with pytest.raises(errors.QuotaExceeded) as refusal:
        _admitted(a_policy(STANDARD), "small", quota_use)
    return refusal.value.limit


@pytest.mark.holds("turns.which-limit")
def test_a_refusal_names_the_limit_that_resets_last() -> None:
    limits = some_limits(total=100_000)
    nearly = Committed(total=99_999)
    tomorrow, next_month = next_reset("daily", NOW), next_reset("monthly", NOW)
    seconds = math.ceil((tomorrow - NOW).total_seconds())
    day = errors.UsedUp("tokens", "total", "daily", tomorrow, seconds)
    assert _refusal(QuotaUse(limits, daily=nearly)) == day
    month = _refusal(QuotaUse(limits, daily=nearly, monthly=nearly))
    assert (month.period, month.next_reset) == ("monthly", next_month)


@pytest.mark.holds("turns.no-reset")
def test_a_refusal_that_no_reset_helps_names_none() -> None:
    assert _refusal(QuotaUse(some_limits(total=10))) == errors.UsedUp("tokens", "total", "daily")
