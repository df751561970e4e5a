"""The bounded queue between the task that makes an answer and the one client that reads it.

The producer waits for a slow client (nothing is buffered without bound) and stops waiting once the client has left.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from minichat.domain.stream import Ping, Told, told


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event as it is told, with its number in the turn, from 1 without gaps; a ping has none."""

    number: int | None
    event: Told


PING = Numbered(None, told(Ping()))


class Channel:
    """Events on their way to one reader; `on_leave` is called once when it goes before the end."""

    def __init__(self, capacity: int) -> None:
        self.on_leave: Callable[[], object] | None = None
        self._capacity = capacity
        self._queue: asyncio.Queue[Numbered | None] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._is_read = True
        self._all_read = False

    async def put(self, numbered: Numbered) -> None:
        """Hands an event over, then waits while the queue is full; drops it when nobody reads any more.

        Who is cancelled while it waits has handed its event over: none is missing between those before and after it.
        """
        if self._is_read:
            self._queue.put_nowait(numbered)
        while self._is_read and self._queue.qsize() >= self._capacity:
            self._taken.clear()
            await self._taken.wait()

    def close(self) -> None:
        """Ends the reader's iteration after what was put before."""
        self._queue.put_nowait(None)

    async def read(self, ping_seconds: float) -> AsyncGenerator[Numbered, None]:
        """The events as they come, and a ping after each `ping_seconds` without one."""
        pending: asyncio.Task[Numbered | None] | None = None
        try:
            while not self._all_read:
                # The getter outlives a ping: cancelling it could lose the event it just took.
                pending = pending or asyncio.create_task(self._queue.get())
                done, _ = await asyncio.wait({pending}, timeout=ping_seconds)
                if not done:
                    yield PING
                    continue
                numbered, pending = pending.result(), None
                self._taken.set()
                if numbered is None:
                    self._all_read = True
                else:
                    yield numbered
        finally:
            if pending is not None:
                pending.cancel()
            self.leave()

    def leave(self) -> None:
        """Nobody reads, or ever will: a producer that waits for room goes on. Safe to call again."""
        if not self._is_read:
            return
        self._is_read = False
        self._taken.set()
        if not self._all_read and self.on_leave is not None:
            self.on_leave()
