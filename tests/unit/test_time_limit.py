"""One timer for many waits: each is held to its own end, and nothing else is."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from minichat.providers.time_limit import TimeLimit

SOON, LATE = 0.02, 30.0


def on_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Runs a test on a loop of its own, where a wait that is not ended fails."""

    async def in_time() -> None:
        async with asyncio.timeout(LATE / 2):
            await test()

    return lambda: asyncio.run(in_time())


def limit_in(seconds: float) -> TimeLimit:
    """A limit that many seconds from now."""
    return TimeLimit(asyncio.get_running_loop().time() + seconds)


async def never() -> None:
    """What does not come."""
    await asyncio.Event().wait()


@on_a_loop
async def test_a_wait_ends_at_its_limit() -> None:
    limit = limit_in(SOON)
    with pytest.raises(TimeoutError), limit:
        await never()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@on_a_loop
async def test_a_limit_that_was_moved_on_holds_from_there() -> None:
    limit, loop = limit_in(SOON), asyncio.get_running_loop()
    with limit:
        await asyncio.sleep(0)
    began, limit.by = loop.time(), limit.by + SOON * 2
    with pytest.raises(TimeoutError), limit:
        await never()
    assert loop.time() - began >= SOON * 2


@on_a_loop
async def test_a_limit_that_was_moved_nearer_holds_from_there() -> None:
    limit = limit_in(LATE)
    with limit:
        await asyncio.sleep(0)
    limit.by = asyncio.get_running_loop().time() + SOON
    with pytest.raises(TimeoutError), limit:
        await never()


@on_a_loop
async def test_what_is_done_between_two_waits_has_no_limit() -> None:
    limit = limit_in(SOON)
    with limit:
        await asyncio.sleep(0)
    await asyncio.sleep(SOON * 2)
    limit.by += LATE
    with limit:
        await asyncio.sleep(0)
    limit.close()


@on_a_loop
async def test_who_cancels_a_waiting_task_has_it_cancelled() -> None:
    async def waits() -> None:
        with limit_in(LATE):
            await never()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_a_loop
async def test_a_task_that_was_cancelled_at_its_limit_is_cancelled() -> None:
    async def waits() -> None:
        with limit_in(SOON):
            try:
                await never()
            finally:
                task.cancel()

    task = asyncio.create_task(waits())
    with pytest.raises(asyncio.CancelledError):
        await task
