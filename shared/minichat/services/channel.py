"""The bounded queue between the task that makes an answer and the one client that reads it.

The producer waits for a slow client (nothing is buffered without bound) and stops waiting once the client has left.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from minichat.domain.stream import Ping, StreamEvent


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event with its number in the turn, from 1 without gaps; a ping has none."""

    number: int | None
    event: StreamEvent


PING = Numbered(None, Ping())


class Channel:
    """Events on their way to one reader; `on_leave` is called once when it goes before the end."""

    def __init__(self, capacity: int) -> None:
        self.on_leave: Callable[[], object] | None = None
        self._queue: asyncio.Queue[Numbered | None] = asyncio.Queue(capacity)
        self._read = True

    async def put(self, numbered: Numbered) -> None:
        """Hands an event over, waiting while the queue is full; drops it when nobody reads any more."""
        if self._read:
            await self._queue.put(numbered)

    async def close(self) -> None:
        """Ends the reader's iteration after what was put before."""
        if self._read:
            await self._queue.put(None)

    async def read(self, ping_seconds: float) -> AsyncGenerator[Numbered, None]:
        """The events as they come, and a ping after each `ping_seconds` without one."""
        ended = False
        pending: asyncio.Task[Numbered | None] | None = None
        try:
            while not ended:
                # The getter outlives a ping: cancelling it could lose the event it just took.
                pending = pending or asyncio.create_task(self._queue.get())
                done, _ = await asyncio.wait({pending}, timeout=ping_seconds)
                if not done:
                    yield PING
                    continue
                numbered, pending = pending.result(), None
                if numbered is None:
                    ended = True
                else:
                    yield numbered
        finally:
            if pending is not None:
                pending.cancel()
            self._leave(early=not ended)

    def _leave(self, *, early: bool) -> None:
        self._read = False
        # A producer that waits for room goes on: each slot taken here wakes one that waits.
        while not self._queue.empty():
            self._queue.get_nowait()
        if early and self.on_leave is not None:
            self.on_leave()
