"""Stream events as bytes of server-sent events (contract 3): id, event, one line of JSON."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any, get_args

from minichat.domain.standing import Remaining
from minichat.domain.stream import Citations, Delta, Done, Error, Ping, Started, StreamEvent, Tool
from minichat.services.channel import Numbered

HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
MEDIA_TYPE = "text/event-stream"


async def encoded(events: AsyncIterator[Numbered]) -> AsyncIterator[bytes]:
    """Each event as the bytes of one frame."""
    async for numbered in events:
        yield frame(numbered)


def frame(numbered: Numbered) -> bytes:
    """One event: `id` is its number in the turn, and a ping has none, so that it never moves a resume."""
    name, data_of = _WIRE[type(numbered.event)]
    data = data_of(numbered.event)
    head = f"id: {numbered.number}\n" if numbered.number is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def _done(event: Done) -> dict[str, Any]:
    usage = {"input_tokens": event.usage.input_tokens, "output_tokens": event.usage.output_tokens}
    usage_details = {
        "cache_read_input_tokens": event.usage.cache_read_input_tokens,
        "cache_write_input_tokens": event.usage.cache_write_input_tokens,
        "reasoning_tokens": event.usage.reasoning_tokens,
    }
    data: dict[str, Any] = {
        "usage": {**usage, "model": event.effective_model, **{k: v for k, v in usage_details.items() if v}},
        "effective_model": event.effective_model,
        "selected_model": event.selected_model,
        "quota_decision": event.quota_decision,
    }
    if event.quota_decision == "downgrade":
        data["downgrade_from"] = event.selected_model
        data["downgrade_reason"] = event.downgrade_reason
    if event.quota_warnings is not None:
        data["quota_warnings"] = [_warning(one) for one in event.quota_warnings]
    return data


def _warning(one: Remaining) -> dict[str, Any]:
    told: dict[str, Any] = {
        "tier": one.bucket,
        "period": one.period,
        "remaining_percentage": one.percentage,
        "warning": one.warning,
        "exhausted": one.exhausted,
    }
    if one.warning:
        told["next_reset"] = one.next_reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return told


_WIRE: dict[type[StreamEvent], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    Started: ("stream_started", asdict),
    Delta: ("delta", lambda event: {"type": "text", "content": event.content}),
    Tool: ("tool", lambda event: {"phase": event.phase, "name": event.name, "details": {}}),
    Citations: ("citations", lambda event: {"items": list(event.items)}),
    Done: ("done", _done),
    Error: ("error", asdict),
    Ping: ("ping", lambda _: {}),
}
assert set(_WIRE) == set(get_args(StreamEvent)), "every event has its bytes"
