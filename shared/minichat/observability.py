"""What one request or record leaves behind: one wide log line, written at its edge, and durations for `Server-Timing`.

Inner code adds to the event of the moment (`note`, `measured`); only the edges log. Never content, tokens or keys.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from aws_lambda_powertools.logging import Logger

logger = Logger(service="minichat")


@dataclass(slots=True)
class Event:
    """What is known of one request or record: fields of the log line, and milliseconds by name of span."""

    fields: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, float] = field(default_factory=dict)


_current: ContextVar[Event | None] = ContextVar("event", default=None)


def begin() -> Event:
    """Opens the event of one request; tasks and threads that it starts see the same one."""
    event = Event()
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


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Adds the time spent inside to the span `name` of the current event."""
    started = time.perf_counter()
    try:
        yield
    finally:
        if (event := _current.get()) is not None:
            event.spans[name] = event.spans.get(name, 0.0) + (time.perf_counter() - started) * 1000
