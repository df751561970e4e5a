"""The events of one turn's stream: numbered, and stored by a task beside the relay (architecture 4)."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from minichat import greenlets
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.stream import StreamEvent, Told, told
from minichat.domain.turn import Turn
from minichat.services.channel import Numbered
from minichat.settings import Streaming
from minichat.storage import parts
from minichat.storage.transact import put_one

LONG = 100_000
"""Characters of text: a transaction takes 4 MB (AWS limit), and includes the answer itself."""


@dataclass(slots=True)
class Transcript:
    """Events from 1 without gaps; the first `stored` of them are in the table, the others are `pending`.

    An event is recorded with its number before its client gets it, so its own process can always tell it again, and any
    other process can once it is stored.
    """

    stored: int = 0
    pending: list[Told] = field(default_factory=list)

    def add(self, event: StreamEvent) -> Numbered:
        """The event as it is told, with its number."""
        self.pending.append(told(event))
        return Numbered(self.stored + len(self.pending), self.pending[-1])

    @property
    def is_long(self) -> bool:
        """Whether the pending events would crowd the transaction that ends the turn."""
        return sum(len(event.data.get("content", "")) for event in self.pending) > LONG

    async def store(self, turn: Turn, streaming: Streaming) -> None:
        """Stores what is pending now; what comes meanwhile stays pending.

        Raises ServiceUnavailable; everything stays pending then.
        """
        events = tuple(self.pending)
        for write in parts.puts(turn, self.stored + 1, events, kept=timedelta(hours=streaming.parts_kept_hours)):
            await greenlets.run(put_one, write.item, op="store_stream")
        self.stored += len(events)
        del self.pending[: len(events)]

    async def keep_storing(self, turn: Turn, streaming: Streaming) -> None:
        """Stores pending events about once a second until cancelled; if the store does not take them, tries again.

        A write under way at that moment may still take effect; the turn's end then writes the same events again.
        """
        while True:
            await asyncio.sleep(streaming.progress_interval_seconds)
            with suppress(ServiceUnavailable):
                await self.store(turn, streaming)
