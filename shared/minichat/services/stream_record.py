"""What the stream of one turn has told: numbered, and stored by a task beside the relay (architecture 4)."""

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
"""Characters of text: a transaction takes 4 MB (AWS limit), and the answer itself is in it too."""


@dataclass(slots=True)
class Transcript:
    """Events from 1 without gaps; the first `stored` of them are in the table, the others are `pending`.

    An event is recorded when it gets its number, before its client has it: what was told can always be told again by
    the process that lives, and by every other once it is stored.
    """

    stored: int = 0
    pending: list[Told] = field(default_factory=list)

    def add(self, event: StreamEvent) -> Numbered:
        """The event as it is told, with its number."""
        self.pending.append(told(event))
        return Numbered(self.stored + len(self.pending), self.pending[-1])

    @property
    def is_long(self) -> bool:
        """Whether so much is pending that it would crowd the transaction that ends the turn."""
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
        """Stores what was told about once a second, until it is cancelled; what the store refuses now is tried again.

        A write that is under way then may still take effect: what it stores is told by the turn's end once more.
        """
        while True:
            await asyncio.sleep(streaming.progress_interval_seconds)
            with suppress(ServiceUnavailable):
                await self.store(turn, streaming)
