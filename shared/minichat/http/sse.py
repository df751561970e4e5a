"""Stream events as bytes of server-sent events (contract 3): id, event, one line of JSON."""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any, assert_never

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
    name, data = _named(numbered.event)
    head = f"id: {numbered.number}\n" if numbered.number is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def _named(event: StreamEvent) -> tuple[str, dict[str, Any]]:
    match event:
        case Started():
            return "stream_started", asdict(event)
        case Delta(content=content):
            return "delta", {"type": "text", "content": content}
        case Tool(phase=phase, name=name):
            return "tool", {"phase": phase, "name": name, "details": {}}
        case Citations(items=items):
            return "citations", {"items": list(items)}
        case Done():
            return "done", _done(event)
        case Error(code=code, message=message):
            return "error", {"code": code, "message": message}
        case Ping():
            return "ping", {}
        case _:
            assert_never(event)


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
    return data
