"""Stream events as bytes of server-sent events (contract 3): id, event, one line of JSON."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from minichat.services.channel import Numbered

MEDIA_TYPE = "text/event-stream"
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DELTA = '{"type":"text","content":'


class EventStream(StreamingResponse):
    """A stream of frames; `on_end` is called when it is over, even if its client left before the first byte."""

    def __init__(self, frames: AsyncIterator[bytes], on_end: Callable[[], None] = lambda: None) -> None:
        headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
        super().__init__(frames, headers=headers, media_type=MEDIA_TYPE)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response, until it is whole or its client has left."""
        try:
            if scope["asgi"].get("spec_version") == "2.3":
                await self._until_left(receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._on_end()

    async def _until_left(self, receive: Receive, send: Send) -> None:
        """What Starlette does where `send` does not tell that a client has left, without a group of tasks."""
        sending, has_left = asyncio.current_task(), False
        assert sending is not None
        cancelled_before = sending.cancelling()

        async def listen() -> None:
            nonlocal has_left
            await self.listen_for_disconnect(receive)
            has_left = True
            sending.cancel()

        listening = asyncio.create_task(listen())
        try:
            await self.stream_response(send)
        except asyncio.CancelledError:
            # Somebody else may have cancelled the request as well.
            if not has_left or sending.uncancel() > cancelled_before:
                raise
        finally:
            listening.cancel()


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
