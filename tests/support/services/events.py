"""The events of a stream one by one, however many left together."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from minichat.services.channel import Numbered


async def each(batches: AsyncGenerator[Sequence[Numbered], None]) -> AsyncGenerator[Numbered, None]:
    """Each event; with its end the reader leaves."""
    async with aclosing(batches):
        async for some in batches:
            for one in some:
                yield one
