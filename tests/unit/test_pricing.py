"""The worked examples of turns-and-quota 4, to the last micro-credit, and what must hold for all numbers."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.errors import InputTooLong
from minichat.domain.policy import EstimationBudgets
from minichat.domain.pricing import CreditOverflow, credits_micro, reserve
from minichat.domain.quota_periods import periods
from minichat.domain.token_estimate import Load, check_input, input_tokens, text_tokens
from minichat.settings import Attachments, Quota
from tests.support.domain.builders import a_model

BUDGETS = EstimationBudgets()
tokens = st.integers(0, 10_000_000)
multipliers = st.integers(1, 10_000_000_000)


@pytest.mark.holds("turns.web-search-day", "turns.interpreter-day", "turns.file-search-day")
@pytest.mark.holds("turns.images-day", "turns.uploads-day")
def test_the_numbers_are_those_of_the_document() -> None:
    document = (Path(__file__).parents[2] / "docs" / "turns-and-quota.md").read_text("utf-8")
    told = {name: int(number) for name, number in re.findall(r"`quota\.(\w+)` \((\d+)", document)}
    assert len(told) >= 9
    assert told == {name: getattr(Quota(), name) for name in told}
    assert f"`attachments.max_images_per_message` ({Attachments().max_images_per_message})" in document


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1000, 500, 1_000_000, 3_000_000), 2500),
        ((1, 1, 1, 1), 2),
        ((1210, 4096, 1_000_000, 3_000_000), 13_498),
        ((10_000_000, 10_000_000, 10**10, 10**10), 200_000_000_000),
        ((0, 0, 1, 1), 0),
        ((3630, 32_768, 3_000_000, 15_000_000), 10_890 + 491_520),
    ],
)
@pytest.mark.holds("turns.exact")
def test_prices_are_exact(arguments: tuple[int, int, int, int], expected: int) -> None:
    assert credits_micro(*arguments) == expected


@pytest.mark.parametrize(
    "arguments",
    [(10_000_001, 0, 1, 1), (0, 10_000_001, 1, 1), (-1, 0, 1, 1), (1, 0, 10**10 + 1, 1), (1, 0, 0, 1)],
)
@pytest.mark.holds("turns.exact")
def test_numbers_outside_the_bounds_are_refused(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(CreditOverflow):
        credits_micro(*arguments)


@given(tokens, tokens, multipliers, multipliers)
def test_a_price_is_never_below_the_exact_one_and_less_than_two_above(i: int, o: int, mi: int, mo: int) -> None:
    exact_times_million = i * mi + o * mo
    assert 0 <= credits_micro(i, o, mi, mo) * 1_000_000 - exact_times_million < 2_000_000


@pytest.mark.parametrize(
    ("utf8_bytes", "load", "expected"),
    [
        (4000, Load(), 1210),
        (0, Load(images=3), 3110),
        (0, Load(file_search=True, web_search=True), 1110),
        (4000, Load(images=2, file_search=True, web_search=True), 4210),
        (0, Load(), 110),
        (0, Load(code_interpreter=True), 1110),
        (400, Load(), 220),
        (1500, Load(), 523),
        (0, Load(context_tokens=7), 117),
    ],
)
@pytest.mark.holds("turns.estimate")
def test_estimates_are_those_of_the_design(utf8_bytes: int, load: Load, expected: int) -> None:
    assert input_tokens(utf8_bytes, load, BUDGETS) == expected


@given(st.integers(0, 10_000_000), st.integers(0, 10_000_000))
def test_more_text_is_never_estimated_lower(one: int, other: int) -> None:
    smaller, larger = sorted((one, other))
    assert text_tokens(smaller, BUDGETS) <= text_tokens(larger, BUDGETS)


def test_a_reserve_is_the_worst_case_in_both_components() -> None:
    model = a_model(input_tokens_credit_multiplier_micro=1_000_000, output_tokens_credit_multiplier_micro=3_000_000)
    made = reserve(model, 1210, 4096, policy_version=1, now=datetime(2026, 11, 30, 23, 59, tzinfo=UTC))
    assert (made.tokens, made.credits_micro) == (5306, 13_498)
    assert (made.daily_period, made.monthly_period) == ("2026-11-30", "2026-11-01")


@pytest.mark.holds("turns.utc-days")
def test_a_period_is_the_utc_date_of_the_instant() -> None:
    assert periods(datetime(2027, 1, 1, 0, 0, tzinfo=UTC)) == ("2027-01-01", "2027-01-01")


def test_a_message_over_the_models_input_is_refused_with_both_numbers() -> None:
    model = a_model(max_input_tokens=500)
    check_input("x" * 1400, model)
    with pytest.raises(InputTooLong, match="523 tokens.*500"):
        check_input("x" * 1500, model)
