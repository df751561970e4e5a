"""Stream events as bytes of server-sent events (contract 3): id, event, one line of JSON."""

import json
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from minichat.services.channel import Numbered

MEDIA_TYPE = "text/event-stream"
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DELTA = '{"type":"text","content":'


class EventStream(StreamingResponse):
    """A stream of events; `on_end` is called when it is over, even if its client left before the first byte."""

    def __init__(self, events: AsyncIterator[Sequence[Numbered]], on_end: Callable[[], None] = lambda: None) -> None:
        headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
        super().__init__(encoded(events), headers=headers, media_type=MEDIA_TYPE)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def encoded(events: AsyncIterator[Sequence[Numbered]]) -> AsyncIterator[bytes]:
    """Each event as the bytes of one frame; events that arrive together are sent together."""
    async for some in events:
        yield b"".join(map(frame, some))


def frame(numbered: Numbered) -> bytes:
    """One event: `id` is its number in the turn. A ping has none, so it never moves a resume."""
    event = numbered.event
    # Nearly all events are deltas, and text alone is encoded in a third of the time that an object takes.
    data = f"{_DELTA}{_JSON.encode(event.data['content'])}}}" if event.name == "delta" else _JSON.encode(event.data)
    head = f"id: {numbered.number}\n" if numbered.number is not None else ""
    return f"{head}event: {event.name}\ndata: {data}\n\n".encode()
