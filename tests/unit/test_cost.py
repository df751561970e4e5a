"""The arithmetic of docs/scaling.md, from its text alone: nothing here asks the script that made it."""

import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
_, MADE, _ = re.split("<!-- (?:end of )?costs -->", PAGE)
TABLES = {
    title: [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]
    for title, rows in re.findall(r"(?m)^\| (.+?) \| amount.*\n\|---.*\n((?:\|.*\n?)+)", MADE)
}
MILLION, MONTH = "a million turns", "every month"
KEPT = "every month, for each million turns kept"
HALF_A_CENT = 0.005


@pytest.mark.parametrize("title", [MILLION, MONTH, KEPT])
def test_the_lines_of_a_table_add_up(title: str) -> None:
    lines, total = _lines(title), _row(title, "**infrastructure**")
    for column, dollars in enumerate(total):
        assert sum(_dollars(line)[column] for line in lines) == pytest.approx(
            dollars, abs=HALF_A_CENT * (len(lines) + 1)
        )


@pytest.mark.parametrize("title", [MILLION, MONTH, KEPT])
def test_a_line_is_its_amount_times_its_price(title: str) -> None:
    for line in _lines(title):
        amounts, _, price = line[1].partition(" × $")
        numbers = [float(number) for number in re.findall(r"(?:^|/ )([\d.]+)", amounts)]
        expected = [number * float(price) for number in numbers if float(price)]
        found = [one for one in _dollars(line) if one]
        assert found == pytest.approx(expected * len(found) if len(expected) == 1 else expected, rel=1e-3, abs=0.006), (
            line
        )


def test_the_model_comes_on_top_and_the_targets_are_compared() -> None:
    infrastructure = _row(MILLION, "**infrastructure**")
    assert _row(MILLION, "target") == [60, 60, 60, 45]
    for name, other in (("above the target", [-60, -60, -60, -45]), ("**with the model**", [2000] * 4)):
        assert _row(MILLION, name) == pytest.approx(
            [a + b for a, b in zip(infrastructure, other, strict=True)], abs=0.011
        )


def test_a_month_is_its_turns_and_what_every_month_costs() -> None:
    million, month = _row(MILLION, "**infrastructure**"), _row(MONTH, "**infrastructure**")
    busy = _row(MILLION, "instances, busy for 60 %")[-1]
    least = _row(MONTH, "least instances: three m7g.large")[-1]
    (title,) = TABLES.keys() - {MILLION, MONTH, KEPT}
    for name, _, *_ in TABLES[title]:
        count = int(name.split()[0])
        expected = [count * turn + fixed for turn, fixed in zip(million, month, strict=True)]
        # Instances are paid once: the least that there are, or those that the turns need.
        expected[-1] += max(least, count * busy) - least - count * busy
        assert _row(title, name) == pytest.approx(expected, abs=0.01 * count + 0.02)


def test_the_bill_is_that_of_the_template() -> None:
    stack: dict[str, Any] = cfn_yaml.load(str(ROOT / "template.yaml"))["Resources"]
    sizes = {name: stack[name]["Properties"]["MemorySize"]["Fn::If"][2] for name in ("StreamFunction", "ApiFunction")}
    # The cheapest column has the default.
    streams = _row(MILLION, "stream function, waiting")[:3]
    assert sizes == {"StreamFunction": (256, 512, 1024)[streams.index(min(streams))], "ApiFunction": 1024}
    alarms = (ROOT / "infra" / "observability.yaml").read_text(encoding="utf-8").count("Type: AWS::CloudWatch::Alarm")
    (line,) = [line for line in _lines(MONTH) if line[0] == "alarms"]
    assert line[1].startswith(f"{alarms} alarms")


def _lines(title: str) -> list[list[str]]:
    """The lines that are added up."""
    names = [line[0] for line in TABLES[title]]
    return TABLES[title][: names.index("**infrastructure**")]


def _row(title: str, name: str) -> list[float]:
    (row,) = [line for line in TABLES[title] if line[0] == name]
    return _dollars(row)


def _dollars(line: list[str]) -> list[float]:
    return [0 if cell == "–" else float(cell.replace("$", "").replace(",", "")) for cell in line[2:]]
