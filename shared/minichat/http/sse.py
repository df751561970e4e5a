"""Stream events as bytes of server-sent events (contract 3): id, event, one line of JSON."""

import json
from collections.abc import AsyncIterator

from minichat.domain.stream import told
from minichat.services.channel import Numbered

HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
MEDIA_TYPE = "text/event-stream"


async def encoded(events: AsyncIterator[Numbered]) -> AsyncIterator[bytes]:
    """Each event as the bytes of one frame."""
    async for numbered in events:
        yield frame(numbered)


def frame(numbered: Numbered) -> bytes:
    """One event: `id` is its number in the turn, and a ping has none, so that it never moves a resume."""
    event = told(numbered.event)
    data = json.dumps(event.data, ensure_ascii=False, separators=(",", ":"))
    head = f"id: {numbered.number}\n" if numbered.number is not None else ""
    return f"{head}event: {event.name}\ndata: {data}\n\n".encode()
