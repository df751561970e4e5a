"""Pauses grow up to a bound, and those of many who wait for the same thing differ."""

import random
from itertools import islice

import pytest

from minichat.pauses import growing, jittered


@pytest.mark.parametrize(
    ("first", "longest", "factor", "expected"),
    [(0.5, 3, 2, [0.5, 1, 2, 3, 3]), (4, 3, 2, [3] * 5), (1, 100, 1.5, [1, 1.5, 2.25, 3.375, 5.0625])],
)
def test_a_pause_grows_up_to_the_longest(first: float, longest: float, factor: float, expected: list[float]) -> None:
    assert list(islice(growing(first, longest, factor=factor), 5)) == expected


def test_what_is_waited_for_very_long_has_a_pause_still() -> None:
    assert next(islice(growing(1, 2), 5000, None)) == 2


def test_a_pause_is_shortened_by_half_at_most() -> None:
    drawn = [jittered(8) for _ in range(1000)]
    assert 4 <= min(drawn) < 4.5
    assert 7.5 < max(drawn) <= 8


def test_copies_of_a_process_do_not_pause_in_step() -> None:
    """Restored from one snapshot (SnapStart), they have one state of Python's own generator."""
    snapshot = random.getstate()
    drawn = set()
    for _ in range(20):
        random.setstate(snapshot)
        drawn.add(jittered(1))
    assert len(drawn) > 1
