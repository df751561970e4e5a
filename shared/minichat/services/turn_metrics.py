"""How an operation on a turn came out, for the metrics (events-and-workers 7)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from minichat.domain.errors import ChatError, Forbidden, GenerationInProgress, InvalidTurnState, NotLatestTurn
from minichat.observability import count, observe

Operation = Literal["send", "retry", "edit", "delete", "cancel"]

_RESULTS: dict[type[ChatError], str] = {
    NotLatestTurn: "not_latest",
    InvalidTurnState: "invalid_state",
    Forbidden: "forbidden",
    GenerationInProgress: "generation_in_progress",
}


@contextmanager
def counted_turn(op: Operation) -> Iterator[None]:
    """Counts the block by how it ended, and measures how long it took; a refusal propagates."""
    started, result = time.perf_counter(), "error"
    try:
        yield
        result = "ok"
    except ChatError as refusal:
        result = _RESULTS.get(type(refusal), "error")
        raise
    finally:
        count("turn_mutation_total", op=op, result=result)
        observe("turn_mutation_latency_ms", (time.perf_counter() - started) * 1000, "Milliseconds", op=op)
