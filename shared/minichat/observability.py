"""The records of one request or queue record: one wide log line, metrics, and durations for `Server-Timing`.

Inner code adds to the current event (`note`, `measured`, `count`, `observe`); only the edges write. Never content,
tokens or keys. No metric by tenant, user, chat or turn: each value of a dimension is a metric of its own, and costs
money (events-and-workers 7; the full list: docs/operations.md).
"""

import json
import logging
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from aws_lambda_powertools.logging import Logger

from minichat import tracing

logger = Logger(service="minichat")

Unit = Literal["Count", "Milliseconds", "None"]

_VALUES_PER_LINE = 99
"""The format takes a hundred values of a metric and a hundred metrics per line."""
_JSON = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of a metric; its dimensions have few values each."""

    name: str
    value: float
    unit: Unit
    dimensions: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class WideEvent:
    """What is known of one request or record: fields of the log line, milliseconds by name of span, and metrics."""

    fields: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, float] = field(default_factory=dict)
    # Deques: threads add to them while the edge takes from them.
    measurements: deque[Measurement] = field(default_factory=deque)
    timeline: deque[tracing.Span] = field(default_factory=deque)
    traced: tracing.Sampled | None = None
    began: float = field(default_factory=time.perf_counter)
    units: dict[str, float] = field(default_factory=dict)


_current: ContextVar[WideEvent | None] = ContextVar("event", default=None)

_WHOSE = ("trace_id", "aws_request_id", "amzn_trace_id")


def _say_whose(record: logging.LogRecord) -> bool:
    """Puts onto every line whose request it is of: those of several that are served at once stand mixed in a log."""
    if (event := _current.get()) is not None:
        for name in _WHOSE:
            if name in event.fields and not hasattr(record, name):
                setattr(record, name, event.fields[name])
    return True


logger.addFilter(_say_whose)


def begin() -> WideEvent:
    """Opens the event of one request; tasks and threads that it starts see the same one."""
    event = WideEvent(traced=tracing.sampled())
    _current.set(event)
    return event


def note(**fields: Any) -> None:
    """Adds fields to the current event, if there is one."""
    if (event := _current.get()) is not None:
        event.fields.update(fields)


def tally(name: str) -> None:
    """Adds one to a count of the current event."""
    if (event := _current.get()) is not None:
        event.fields[name] = event.fields.get(name, 0) + 1


def spend(what: str, units: float) -> None:
    """Adds units of DynamoDB to those that the current event has taken for this."""
    if (event := _current.get()) is not None:
        event.units[what] = event.units.get(what, 0.0) + units


def spent() -> tuple[dict[str, float], float] | None:
    """Units of DynamoDB that the current event has taken, by what for, and its milliseconds so far; None outside."""
    event = _current.get()
    return None if event is None else (dict(event.units), (time.perf_counter() - event.began) * 1000)


def count(name: str, value: float = 1, /, **dimensions: str) -> None:
    """Adds to a summed metric."""
    observe(name, value, "Count", **dimensions)


def observe(name: str, value: float, unit: Unit, /, **dimensions: str) -> None:
    """Adds a value to a metric whose distribution matters."""
    if (event := _current.get()) is not None:
        event.measurements.append(Measurement(name, value, unit, tuple(sorted(dimensions.items()))))


def emit(namespace: str) -> None:
    """Writes the current event's unwritten metrics, in CloudWatch's embedded metric format, and sends its spans.

    Each set of dimensions has a line, which gives its metrics both by these dimensions and without any; alarms use the
    latter. Work that outlives the edge of its event calls this once more. Without a namespace the metrics are dropped.
    """
    event = _current.get()
    if event is None:
        return
    if event.traced is not None and event.timeline:
        spans = [event.timeline.popleft() for _ in range(len(event.timeline))]
        tracing.send(spans, event.traced, str(event.fields.get("trace_id", "")))
    alike: defaultdict[tuple[tuple[str, str], ...], list[Measurement]] = defaultdict(list)
    with suppress(IndexError):
        while True:
            measurement = event.measurements.popleft()
            alike[measurement.dimensions].append(measurement)
    if namespace and alike:
        lines = [line for dimensions, found in alike.items() for line in _lines(namespace, dict(dimensions), found)]
        # One write, so that no thread's log line comes in between.
        sys.stdout.write("".join(lines))
        sys.stdout.flush()


def _lines(namespace: str, dimensions: dict[str, str], measurements: list[Measurement]) -> Iterator[str]:
    # Written as CloudWatch's specification has it: Powertools would check and copy each value
    # (docs/decisions/0031-cpu-of-a-send.md).
    for start in range(0, len(measurements), _VALUES_PER_LINE):
        units, values = dict[str, Unit](), defaultdict[str, list[float]](list)
        for one in measurements[start : start + _VALUES_PER_LINE]:
            units[one.name] = one.unit
            values[one.name].append(float(one.value))
        told = {
            "Namespace": namespace,
            "Dimensions": [[], [*dimensions]] if dimensions else [[]],
            "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
        }
        about = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [told]}
        yield _JSON.encode({"_aws": about, **dimensions, **values}) + "\n"


class measured:
    """Adds the time spent inside to the span `name` of the current event; `trace_id` is that of a record of a batch."""

    __slots__ = ("_name", "_started", "_trace_id")

    def __init__(self, name: str, trace_id: str = "") -> None:
        self._name, self._trace_id = name, trace_id

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        spent = time.perf_counter() - self._started
        if (event := _current.get()) is not None:
            event.spans[self._name] = event.spans.get(self._name, 0.0) + spent * 1000
            if event.traced is not None:
                ended = time.time()
                failed = raised is not None
                event.timeline.append(tracing.Span(self._name, ended - spent, ended, failed, self._trace_id))
