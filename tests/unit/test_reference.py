"""What can be looked up is what the code says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minichat.domain import access_errors, errors
from minichat.http.problems import STATUS
from tests.reference import FOLDER, RECORDS, SCALING, commands, list_of_records, pages, settings, with_costs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_of_the_reference_is_as_the_code_has_it(name: str) -> None:
    assert (ROOT / FOLDER / name).read_text(encoding="utf-8") == pages()[name], "stale: run `make docs`"


def test_the_tables_of_cost_are_as_the_code_has_them() -> None:
    page = (ROOT / SCALING).read_text(encoding="utf-8")
    assert page == with_costs(page), "stale: run `make docs`"
    assert page.count("| **infrastructure** |") == 3


def test_every_decision_record_is_listed() -> None:
    folder = ROOT / RECORDS
    assert (folder / "README.md").read_text(encoding="utf-8") == list_of_records(folder), "stale: run `make docs`"


def test_the_reference_has_no_other_page() -> None:
    assert {path.name for path in (ROOT / FOLDER).iterdir()} == set(pages())


def test_every_number_among_the_settings_says_what_it_counts() -> None:
    assert settings.without_unit() == []


def test_every_argument_of_a_command_says_what_it_is() -> None:
    assert commands.without_help() == []


def test_the_reference_is_the_same_in_every_terminal() -> None:
    narrow = {**os.environ, "COLUMNS": "20", "FORCE_COLOR": "1", "LC_ALL": "C"}
    made = subprocess.run(
        [sys.executable, "-c", "from tests.reference import pages; print(ascii(pages()))"],
        cwd=ROOT,
        env=narrow,
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.strip() == ascii(pages())


def test_the_tree_of_refusals_has_the_codes_and_statuses_that_are_answered() -> None:
    drawn = re.findall(r"[├└]── (\w+) +(\w+) +(\d{3})\b", f"{errors.__doc__}{access_errors.__doc__}")
    of_its_own = {error for error in STATUS if error.__base__ is not None and "code" in vars(error)}
    assert {name: (code, int(status)) for name, code, status in drawn} == {
        error.__name__: (error.code, STATUS[error]) for error in of_its_own
    }
