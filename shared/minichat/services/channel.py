"""The bounded queue between the task that makes an answer and the one client that reads it.

The producer waits for a slow client (nothing is buffered without bound) and stops waiting once the client has left.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
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
        self.waiting: list[Numbered] = []
        """What nobody has read yet."""
        self._capacity = capacity
        self._come = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_over = False
        self._is_read = True
        self._all_read = False

    async def put(self, numbered: Numbered) -> None:
        """Hands an event over, then waits while the channel is full; drops it when nobody reads any more.

        A caller cancelled while waiting has already handed its event over: the sequence has no gap.
        """
        if self._is_read:
            self.waiting.append(numbered)
            self._come.set()
        while self._is_read and len(self.waiting) >= self._capacity:
            self._taken.clear()
            await self._taken.wait()

    def close(self) -> None:
        """Ends the reader's iteration after what was put before."""
        self._is_over = True
        self._come.set()

    async def read(self, ping_seconds: float) -> AsyncGenerator[Sequence[Numbered], None]:
        """The events as they come, those that wait together, and a ping after each `ping_seconds` without one."""
        try:
            while not self._all_read:
                if not self.waiting and not self._is_over:
                    self._come.clear()
                    try:
                        async with asyncio.timeout(ping_seconds):
                            await self._come.wait()
                    except TimeoutError:
                        yield (PING,)
                        continue
                is_over, events, self.waiting = self._is_over, self.waiting, []
                self._taken.set()
                if events:
                    yield events
                self._all_read = is_over
        finally:
            self.leave()

    def leave(self) -> None:
        """Says that nobody reads any more: a producer waiting for room goes on. Safe to call again."""
        if not self._is_read:
            return
        self._is_read = False
        self._taken.set()
        if not self._all_read and self.on_leave is not None:
            self.on_leave()
