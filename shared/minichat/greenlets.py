"""Functions that wait without a thread: they run on the event loop, and stand aside where they wait.

Storage and services are plain functions: a queue's consumer, the command line and tests call them as such. Where a
request is served, `run` lets them run as greenlets instead, so that no thread is paid for a call that waits: what they
wait for, at the few places that ask `may_wait`, is awaited by the loop, which does other work meanwhile.
(SQLAlchemy's asyncio extension is built in the same way.)
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

_under_way = set[asyncio.Task[Any]]()
_readers = ThreadPoolExecutor(max_workers=32, thread_name_prefix="read")


class _Worker(greenlet):
    """A function as a greenlet, in a copy of its caller's context, as a thread of `asyncio.to_thread` would have it."""

    def __init__(self, function: Callable[[], Any], loop: greenlet) -> None:
        super().__init__(function, loop)
        self.gr_context = copy_context()


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function returns, or raises. It runs to its end even when nobody waits for it any more."""
    task = asyncio.ensure_future(_driven(_Worker(lambda: function(*args, **kwargs), getcurrent())))
    _under_way.add(task)
    task.add_done_callback(_ended)
    return await asyncio.shield(task)


def may_wait() -> bool:
    """Whether the running function was begun by `run`, and so can `wait`."""
    return isinstance(getcurrent(), _Worker)


def wait(awaited: Awaitable[T]) -> T:
    """What is awaited, by the loop: only for a function that `may_wait`."""
    loop = getcurrent().parent
    assert loop is not None, "only what `run` has begun can stand aside"
    result: T = loop.switch(awaited)
    return result


def sleep(seconds: float) -> None:
    """Pauses the function, and nobody else."""
    if may_wait():
        wait(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def blocks(function: Callable[P, T]) -> Callable[P, T]:
    """A function that blocks its thread and cannot stand aside: on the loop it has a thread of its own."""

    @wraps(function)
    def elsewhere(*args: P.args, **kwargs: P.kwargs) -> T:
        if may_wait():
            return wait(asyncio.to_thread(function, *args, **kwargs))
        return function(*args, **kwargs)

    return elsewhere


def together(first: Callable[[], T], second: Callable[[], S]) -> tuple[T, S]:
    """Two functions side by side: as long as the slower one waits."""
    if may_wait():
        loop = getcurrent().parent
        assert loop is not None
        return wait(_both(_Worker(first, loop), _Worker(second, loop)))
    pending = _readers.submit(second)
    return first(), pending.result()


async def _both(first: _Worker, second: _Worker) -> tuple[Any, Any]:
    other = asyncio.ensure_future(_driven(second))
    # As with threads: a failure of the first one is told at once, and the other is not broken off.
    other.add_done_callback(_ended)
    _under_way.add(other)
    return await _driven(first), await other


def _ended(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, lest asyncio reports it where nobody waited any more


async def _driven(worker: _Worker) -> Any:
    given = worker.switch()
    while not worker.dead:
        try:
            came = await given
        except BaseException:  # whatever it is, it is the function's to handle
            given = worker.throw(*sys.exc_info())
        else:
            given = worker.switch(came)
    return given
