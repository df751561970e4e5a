"""The table of stand-ins in docs/local-vs-aws.md: each row says how strict it is, why not, and which test shows it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = {
    "engine", "queues", "consumers", "stream", "schedules", "bucket", "function events", "Runtime API", "providers",
    "Secrets Manager", "token issuer",
}  # fmt: skip
KINDS = re.compile(r"(as strict|tested by injection)(: .+)?|kinder, because .{15,}")
NONE = "—"


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "local-vs-aws.md").read_text(encoding="utf-8")
    table = text[text.index("| stand-in |") :].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The names of all tests."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {
        name
        for file in files
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_row_says_how_strict_it_is_where_the_rule_is_from_and_why_it_is_kinder() -> None:
    for row in rows():
        _, point, rule, ours, tests = row
        assert point
        assert re.search(r"\(.{6,}\)$", rule), row
        assert KINDS.fullmatch(ours), row
        assert (tests != NONE) or ours.startswith("kinder"), row


def test_every_test_that_a_row_names_exists(known: set[str]) -> None:
    named = {name for row in rows() for name in re.findall(r"`(\w+)`", row[4])}
    assert len(named) > 50
    assert named - known == set()


def test_every_stand_in_has_rows_and_no_point_is_told_twice() -> None:
    assert {row[0] for row in rows()} == STAND_INS
    points = [(row[0], row[1]) for row in rows()]
    assert len(points) == len(set(points))
