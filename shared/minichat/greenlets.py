"""Functions that wait without a thread: they run on the event loop, and yield to it while they wait.

Storage and services are plain functions: queue consumers, the command line and tests call them as such. To serve a
request, `run` runs them as greenlets instead, so that a waiting call costs no thread. At the few places that check
`may_wait`, the loop awaits in the function's stead, and does other work meanwhile.
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
    """A function as a greenlet, in a copy of its caller's context, as in a thread of `asyncio.to_thread`."""

    def __init__(self, function: Callable[[], Any], loop: greenlet) -> None:
        super().__init__(function, loop)
        self.gr_context = copy_context()


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns or raises what the function does. It runs to its end even when nobody waits for it any more."""
    task = asyncio.ensure_future(_driven(_Worker(lambda: function(*args, **kwargs), getcurrent())))
    _under_way.add(task)
    task.add_done_callback(_ended)
    return await asyncio.shield(task)


def may_wait() -> bool:
    """Whether `run` started the running function, which can `wait` then."""
    return isinstance(getcurrent(), _Worker)


def wait(awaited: Awaitable[T]) -> T:
    """The result of an awaitable, awaited by the loop: only for a function that `may_wait`."""
    loop = getcurrent().parent
    assert loop is not None, "only functions started by `run` can wait"
    result: T = loop.switch(awaited)
    return result


def sleep(seconds: float) -> None:
    """Pauses the function, and nobody else."""
    if may_wait():
        wait(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def blocks(function: Callable[P, T]) -> Callable[P, T]:
    """Wraps a function that blocks: on the loop it runs in a thread of its own."""

    @wraps(function)
    def elsewhere(*args: P.args, **kwargs: P.kwargs) -> T:
        if may_wait():
            return wait(asyncio.to_thread(function, *args, **kwargs))
        return function(*args, **kwargs)

    return elsewhere


def together(first: Callable[[], T], second: Callable[[], S]) -> tuple[T, S]:
    """The results of two functions that wait concurrently: it takes as long as the slower one."""
    if may_wait():
        loop = getcurrent().parent
        assert loop is not None
        return wait(_both(_Worker(first, loop), _Worker(second, loop)))
    pending = _readers.submit(second)
    return first(), pending.result()


async def _both(first: _Worker, second: _Worker) -> tuple[Any, Any]:
    other = asyncio.ensure_future(_driven(second))
    # As with threads: a failure of the first is raised at once, and the other is not interrupted.
    other.add_done_callback(_ended)
    _under_way.add(other)
    return await _driven(first), await other


def _ended(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved, lest asyncio reports it when nobody waited any more


async def _driven(worker: _Worker) -> Any:
    given = worker.switch()
    while not worker.dead:
        try:
            came = await given
        except BaseException:  # any exception is the function's to handle
            given = worker.throw(*sys.exc_info())
        else:
            given = worker.switch(came)
    return given
