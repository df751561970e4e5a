"""Which numbers `make mutants` leaves alone."""

import re

import pytest

from tests.mutants.decided import decided_numbers


@pytest.mark.parametrize(
    ("source", "left_alone"),
    [
        ("MOST = 64 * 1024", ["64", "1024"]),
        ("_AT, _MOST = 12, 4 * 1024", ["12", "4", "1024"]),
        ("LONGEST = timedelta(days=366)", ["366"]),
        ("class Body:\n    limit: Annotated[int, Field(ge=1, le=100)] = 20", ["100", "20"]),
        ("Tier = Annotated[int, Field(ge=1, le=5)]", ["5"]),
        ("def read(limit: Annotated[int, Query(le=50)] = 20, *, wait: float = 2.5) -> None: ...", ["50", "20", "2.5"]),
        ('NAME, ROOM = "é", 7', ["7"]),
        # None and the first are no sizes, a status is no limit, and what a function computes follows from something.
        ("class Counts:\n    sends: int = 0\n    first: int = 1", []),
        ("STATUS = {NotFound: 404}", []),
        ("@router.post(path, status_code=202)\ndef create() -> None: ...", []),
        ("def soon(now):\n    wait = 30\n    return now + timedelta(seconds=wait * 2)", []),
        ("MARKS = tuple(RULES[2:5])", []),
    ],
)
def test_a_number_is_left_alone_when_it_was_decided_and_follows_from_nothing(
    source: str, left_alone: list[str]
) -> None:
    lines = source.splitlines()
    found = [re.match(r"[\d.]+", lines[line - 1][column:]) for line, column in sorted(decided_numbers(source))]
    assert [one and one[0] for one in found] == left_alone
