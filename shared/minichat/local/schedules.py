"""The local stack's EventBridge Scheduler: calls the functions that the template schedules.

It runs as a process of its own. As on AWS, calls do not wait for each other: a function is called even while its last
call runs, and a failed call is logged and the function called at its next time.
"""

import importlib
import re
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from minichat.local import limits
from minichat.local.lambda_events import LambdaContext, scheduled_event
from minichat.local.mappings import Handler
from minichat.local.tables import load_template, project_root
from minichat.moment import now
from minichat.observability import logger

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A function, the seconds between its calls, and its timeout in seconds."""

    name: str
    handler: str
    seconds: int
    timeout: int


def scheduled(template: dict[str, Any]) -> list[Schedule]:
    """Every schedule of the template's functions."""
    return [
        Schedule(
            name,
            resource["Properties"]["Handler"],
            _seconds(event["Properties"]["ScheduleExpression"]),
            resource["Properties"]["Timeout"],
        )
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
        for event in resource["Properties"].get("Events", {}).values()
        if event["Type"] == "ScheduleV2"
    ]


def main() -> None:
    """Calls each scheduled function when it is due, until the process is stopped."""
    limits.install()
    schedules = scheduled(load_template(project_root() / "template.yaml"))
    handlers = {schedule: imported(schedule.handler) for schedule in schedules}
    due = {schedule: time.monotonic() + schedule.seconds for schedule in schedules}
    while due:
        schedule = min(due, key=lambda one: due[one])
        time.sleep(max(due[schedule] - time.monotonic(), 0))
        due[schedule] += schedule.seconds
        call = threading.Thread(target=invoked, args=(schedule, handlers[schedule], now()), daemon=True)
        call.start()


def invoked(schedule: Schedule, handler: Handler, at: datetime) -> bool:
    """Calls a scheduled function as of that instant; False when it failed."""
    try:
        handler(scheduled_event(schedule.name, at), LambdaContext(schedule.name, schedule.timeout))
    except Exception:  # the edge of an invocation
        logger.exception("a scheduled function failed", extra={"function": schedule.name})
        return False
    return True


def _seconds(expression: str) -> int:
    match = _RATE.fullmatch(expression)
    if match is None:
        raise ValueError(f"the local stack understands rate(…) only, not {expression}")
    return int(match[1]) * _SECONDS[match[2]]


def imported(handler: str) -> Handler:
    """The function that a template names as a handler."""
    module, _, name = handler.rpartition(".")
    function: Handler = getattr(importlib.import_module(module), name)
    return function


if __name__ == "__main__":
    main()
