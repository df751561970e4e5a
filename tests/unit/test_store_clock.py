"""How far a clock is off the store's, from the whole seconds that its answers tell."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat import moment
from minichat.domain.store_clock import DATE_SECONDS, Offset

NOON = 1_800_000_000.0

off = st.floats(-7200, 7200)
waits = st.floats(0, 10)


@st.composite
def exchanges(draw: st.DrawFn, *, most: int = 30) -> list[tuple[float, float, float, float]]:
    """When each request was sent, how long it and its answer took, and how old the date was that the server put in."""
    sent = NOON
    found = []
    for _ in range(draw(st.integers(1, most))):
        sent += draw(st.floats(0, 600))
        found.append((sent, draw(waits), draw(waits), draw(st.floats(0, 0.999))))
    return found


def after(offset: Offset, exchange: tuple[float, float, float, float], difference: float) -> Offset:
    """The offset once an exchange is over, as a clock sees it that is `difference` seconds behind the store's."""
    sent, there, back, stale = exchange
    made = sent + there + difference
    return offset.narrowed(float(int(made - stale)), sent, sent + there + back)


@given(off, exchanges())
def test_the_offset_is_never_further_off_than_an_answer_is_vague(
    difference: float, answers: list[tuple[float, float, float, float]]
) -> None:
    offset, vague = Offset(), float("inf")
    for exchange in answers:
        offset = after(offset, exchange, difference)
        vague = min(vague, exchange[1] + exchange[2] + DATE_SECONDS)
        assert offset.at_least - 1e-3 <= difference <= offset.at_most + 1e-3
        assert abs(offset.seconds - difference) <= vague + 1e-3


@given(st.floats(-0.5, 0.5), exchanges())
def test_a_clock_that_is_right_is_hardly_touched(
    difference: float, answers: list[tuple[float, float, float, float]]
) -> None:
    offset = Offset()
    for exchange in answers:
        offset = after(offset, exchange, difference)
        assert abs(offset.seconds) <= abs(difference) + 1e-3


@given(off, off, exchanges(), exchanges(most=1))
def test_a_clock_that_is_set_is_right_again_with_the_next_answer(
    before: float,
    behind: float,
    old: list[tuple[float, float, float, float]],
    new: list[tuple[float, float, float, float]],
) -> None:
    offset = Offset()
    for exchange in old:
        offset = after(offset, exchange, before)
    ((sent, there, back, stale),) = new
    later = (sent + 100_000, there, back, stale)
    offset = after(offset, later, behind)
    assert abs(offset.seconds - behind) <= there + back + DATE_SECONDS + 1e-3


def test_an_answer_that_came_before_it_was_asked_for_says_nothing() -> None:
    offset = Offset().narrowed(NOON, NOON + 5, NOON + 5)
    assert offset.narrowed(NOON, NOON + 100, NOON + 50) == offset


@pytest.mark.holds("turns.store-clock")
def test_this_instant_is_the_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moment, "_offset", Offset())
    own = datetime.now(UTC)
    assert not moment.has_heard()
    moment.heard("no date at all", own.timestamp(), own.timestamp())
    assert not moment.has_heard()
    theirs = datetime.fromtimestamp(own.timestamp() + 3600, UTC)
    moment.heard(format_datetime(theirs, usegmt=True), own.timestamp(), own.timestamp())
    assert moment.has_heard()
    assert 3590 < (moment.now() - datetime.now(UTC)).total_seconds() < 3610
