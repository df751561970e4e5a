"""`Server-Timing`: what a request's response tells of the time that the server spent on it (contract 4)."""

import time

from minichat.observability import WideEvent


def value(event: WideEvent, started_at: float) -> str:
    """The header: milliseconds of each span that was measured so far (the token, reads, context, the transaction), and
    of the whole since `started_at`, in seconds of `time.perf_counter`."""
    spans = {**event.spans, "total": (time.perf_counter() - started_at) * 1000}
    return ", ".join(f"{name};dur={spent:.2f}" for name, spent in spans.items())
