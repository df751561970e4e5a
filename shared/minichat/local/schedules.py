"""EventBridge Scheduler of the local stack: calls the functions that the template schedules, as it says.

It runs as a process of its own: a function that fails is logged and called again at its next time, as on AWS.
"""

import importlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minichat.local.tables import load_template, project_root
from minichat.moment import now
from minichat.observability import logger

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A function and the seconds between two of its calls."""

    name: str
    handler: str
    seconds: int


def scheduled(template: dict[str, Any]) -> list[Schedule]:
    """Every schedule of the template's functions."""
    return [
        Schedule(name, resource["Properties"]["Handler"], _seconds(event["Properties"]["ScheduleExpression"]))
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
        for event in resource["Properties"].get("Events", {}).values()
        if event["Type"] == "ScheduleV2"
    ]


def main() -> None:
    """Calls each scheduled function when it is due, until the process is stopped."""
    schedules = scheduled(load_template(project_root() / "template.yaml"))
    handlers = {schedule.name: imported(schedule.handler) for schedule in schedules}
    due = {schedule.name: time.monotonic() + schedule.seconds for schedule in schedules}
    while due:
        name = min(due, key=lambda one: due[one])
        time.sleep(max(due[name] - time.monotonic(), 0))
        due[name] += next(schedule.seconds for schedule in schedules if schedule.name == name)
        try:
            handlers[name]({"time": now().isoformat()}, None)
        except Exception:  # the edge of an invocation
            logger.exception("a scheduled function failed", extra={"function": name})


def _seconds(expression: str) -> int:
    match = _RATE.fullmatch(expression)
    if match is None:
        raise ValueError(f"the local stack understands rate(…) only, not {expression}")
    return int(match[1]) * _SECONDS[match[2]]


def imported(handler: str) -> Callable[[dict[str, Any], object], object]:
    """The function that a template names as a handler."""
    module, _, name = handler.rpartition(".")
    function: Callable[[dict[str, Any], object], object] = getattr(importlib.import_module(module), name)
    return function


if __name__ == "__main__":
    main()
