"""The picture of what is deployed (docs/architecture.md) shows what the templates have."""

import re
from itertools import pairwise
from typing import Any, get_args

import pytest

from minichat.events.base import Queue
from minichat.local.tables import load_template, project_root

DRAWN = ("Function", "Table", "Queue", "Bucket", "Api")
_SHORT = re.compile(r"^(?:Queues\.Outputs\.(\w+Queue)Arn|Tables\.Outputs\.(\w+)StreamArn)$")
_ARROW = re.compile(r" (?:-->|-- [^-]+ -->|<-\. [^.]+ \.->) ")
_SCHEDULES = {"rate(1 minute)": "minute", "rate(1 day)": "day"}


@pytest.fixture(scope="module")
def section() -> str:
    """The section with the picture."""
    page = (project_root() / "docs" / "architecture.md").read_text(encoding="utf-8")
    return page.partition("## What is deployed")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def arrows(section: str) -> set[tuple[str, str]]:
    """From where to where the picture has arrows."""
    drawn: set[tuple[str, str]] = set()
    for line in section.partition("```mermaid\n")[2].partition("```")[0].splitlines():
        if not _ARROW.search(line):
            continue
        stops = [[_name(node) for node in stop.split(" & ")] for stop in _ARROW.split(line)]
        drawn |= {(start, end) for starts, ends in pairwise(stops) for start in starts for end in ends}
    return drawn


@pytest.fixture(scope="module")
def resources() -> dict[str, dict[str, Any]]:
    """All resources, of every template."""
    templates = [project_root() / "template.yaml", *sorted((project_root() / "infra").glob("*.yaml"))]
    return {name: one for path in templates for name, one in load_template(path)["Resources"].items()}


def test_functions_tables_queues_and_buckets_are_those_of_the_templates(
    section: str, resources: dict[str, dict[str, Any]]
) -> None:
    deployed = {name for name, one in resources.items() if one["Type"].rpartition("::")[2] in DRAWN}
    named = set(re.findall(rf"(?<!…)\b\w*(?:{'|'.join(DRAWN)})\b", section))
    # As the text says of dead letters.
    named |= {f"{name.removesuffix('Queue')}DeadLetterQueue" for name in named if re.search("(?<!Letter)Queue$", name)}
    assert named == deployed


def test_what_calls_each_function_is_what_the_template_says(
    arrows: set[tuple[str, str]], resources: dict[str, dict[str, Any]]
) -> None:
    said = {
        (_source(event), name)
        for name, one in resources.items()
        if one["Type"] == "AWS::Serverless::Function"
        for event in one["Properties"]["Events"].values()
    }
    assert {arrow for arrow in arrows if arrow[1].endswith("Function")} == said


def test_the_relay_sends_to_every_queue_that_events_are_for(arrows: set[tuple[str, str]]) -> None:
    queues = {f"{name.replace('-', ' ').title().replace(' ', '')}Queue" for name in get_args(Queue)}
    assert {end for start, end in arrows if start == "OutboxRelayFunction"} == queues


def _name(node: str) -> str:
    found = re.match(r"\s*(\w+)", node)
    assert found is not None, node
    return found[1]


def _source(event: dict[str, Any]) -> str:
    properties = event["Properties"]
    if event["Type"] == "ScheduleV2":
        return _SCHEDULES[properties["ScheduleExpression"]]
    if event["Type"] == "Api":
        return str(properties["RestApiId"])
    found = _SHORT.match(properties.get("Queue") or properties["Stream"])
    assert found is not None, properties
    return found[1] or f"{found[2]}Table"
