"""How fast one may go: the pace as a property, and what is told to who must wait."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.errors import RateLimited
from minichat.domain.rates import Pace, Rates, RateUse, TenantUse, milliseconds

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def arrived(pace: Pace, gaps: list[int]) -> list[int]:
    """The instants (milliseconds since NOW) of those arrivals that were admitted; gaps are milliseconds too."""
    expected, instant, admitted = 0, 0, []
    for gap in gaps:
        instant += gap
        arrival = pace.arrival(expected, NOW + timedelta(milliseconds=instant))
        assert arrival is not None
        after = arrival.after(expected)
        if after is not None:
            expected = after
            admitted.append(instant)
    return admitted


@given(st.integers(1, 50), st.lists(st.integers(0, 5_000), max_size=200))
@pytest.mark.holds("turns.rates-pace")
def test_in_any_stretch_at_most_the_limit_at_once_and_one_more_per_interval(limit: int, gaps: list[int]) -> None:
    pace = Pace("sends_per_minute", limit, MINUTE)
    admitted = arrived(pace, gaps)
    for first, begins in enumerate(admitted):
        for number, instant in enumerate(admitted[first:], 1):
            assert number <= limit + (instant - begins) // pace.interval


@given(st.integers(1, 50), st.integers(0, 10_000))
def test_who_keeps_to_the_pace_is_never_refused(limit: int, more: int) -> None:
    pace = Pace("sends_per_minute", limit, MINUTE)
    assert len(arrived(pace, [pace.interval + more] * 100)) == 100


@given(st.integers(1, 200), st.lists(st.integers(0, 2_000), min_size=1, max_size=200))
@pytest.mark.holds("turns.rates-told")
def test_who_comes_back_when_told_is_admitted_and_a_second_earlier_is_not(limit: int, gaps: list[int]) -> None:
    pace = Pace("sends_per_minute", limit, MINUTE)
    expected, instant = 0, NOW
    for gap in gaps:
        instant += timedelta(milliseconds=gap)
        arrival = pace.arrival(expected, instant)
        assert arrival is not None
        expected = arrival.after(expected) or expected
    try:
        pace.check(expected, instant)
    except RateLimited as refused:
        wait = refused.retry_after_seconds
        assert 1 <= wait <= 60
        pace.check(expected, instant + timedelta(seconds=wait))
        if wait > 1:
            with pytest.raises(RateLimited):
                pace.check(expected, instant + timedelta(seconds=wait - 1))


@given(st.integers(1, 100), st.integers(121_000, 10**9))
def test_a_clock_that_ran_ahead_keeps_nobody_out(limit: int, ahead: int) -> None:
    pace = Pace("sends_per_minute", limit, MINUTE)
    expected = milliseconds(NOW) + ahead
    arrival = pace.arrival(expected, NOW)
    assert arrival is not None
    assert arrival.after(expected) == milliseconds(NOW) + pace.interval
    assert arrival.after(expected + 1) is None, "only what was seen is disbelieved"


@given(st.integers(0, 10**15))
@pytest.mark.holds("turns.rates-none")
def test_a_limit_of_zero_is_none(expected: int) -> None:
    assert Pace("sends_per_minute", 0, MINUTE).arrival(expected, NOW) is None
    RateUse(turns_in_flight=10**6, sends=expected, tenant=TenantUse(10**6, 10**6)).check_send(NOW)


def test_the_limits_of_the_defaults_are_exact_at_their_edge() -> None:
    rates = Rates()
    RateUse(turns_in_flight=rates.turns_in_flight - 1, limits=rates).check_send(NOW)
    with pytest.raises(RateLimited) as refused:
        RateUse(turns_in_flight=rates.turns_in_flight, limits=rates).check_send(NOW)
    assert (refused.value.scope, refused.value.limit, refused.value.whose) == ("turns_in_flight", 10, "user")
    assert len(arrived(rates.sends, [0] * 100)) == rates.sends_per_minute
    # The second of the next send, and not a millisecond before.
    assert len(arrived(rates.sends, [0] * 60 + [999, 1])) == 61
