"""The days that a report of usage is of."""

from datetime import date, timedelta

import pytest

from minichat.domain.errors import InvalidRequest
from minichat.http.routes.usage import MOST_DAYS, days

FIRST = date(2026, 2, 27)


def test_a_report_is_of_every_day_from_the_first_to_the_last() -> None:
    assert days(FIRST, FIRST) == ["2026-02-27"]
    assert days(FIRST, FIRST + timedelta(days=2)) == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert len(days(FIRST, FIRST + timedelta(days=MOST_DAYS - 1))) == MOST_DAYS


@pytest.mark.parametrize("later", [-1, MOST_DAYS])
def test_a_report_is_of_a_day_at_least_and_of_so_many_at_most(later: int) -> None:
    with pytest.raises(InvalidRequest, match=str(MOST_DAYS)):
        days(FIRST, FIRST + timedelta(days=later))
