"""Serves several invocations side by side, where one environment is given them (Lambda Managed Instances).

As many pollers ask for invocations as Lambda says, each over a connection of its own. Each invocation is a task, in a
context of its own: its id and trace are in `of_several`, never in the environment of the process. They share a thread
and an end, so two things are looked after that are nothing to one alone:

- Where the event loop is late, nobody asks for more while something runs. (Who already asks may still be given one.)
- At SIGTERM nobody asks any more. What runs may end by itself; then the app is told to stop (ASGI's lifespan), which
  cuts short and stores what is left.

The first poller that the Runtime API fails makes the others stop, too; what runs goes on to its end before the process
ends, and Lambda starts another.
"""

import asyncio
import os
import signal
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stream_runtime_api import Answer, Invocations, RuntimeApiFailed, log, of_several

LATE_SECONDS = 0.1
"""Above this a loop is late: whoever watches a text grow sees it halt from about here. A turn begins with some 10 ms of
CPU, so it is also what ten take that begin at once: with less every burst would be an overload."""

LOOK_SECONDS = 0.05
"""Between two looks at how late the loop is."""

DRAIN_SECONDS = "STREAM_DRAIN_SECONDS"
"""The variable that says for how long after SIGTERM what runs may end by itself: 0.2 s without it. AWS promises two
until SIGKILL (Lambda Developer Guide, "Understanding the Lambda execution environment lifecycle"), and to cut fifty
short and store them takes most of that (docs/decisions/0016)."""

LAST_SECONDS = 0.5
"""For the last events of what was cut short to reach their clients."""

AsgiApp = Callable[..., Awaitable[None]]
Invoke = Callable[[AsgiApp, Answer], Awaitable[None]]


class Here:
    """What goes on in this environment."""

    def __init__(self) -> None:
        self.running = 0
        """Invocations that are being served."""
        self.on_time = asyncio.Event()
        self.on_time.set()
        self.no_more = asyncio.Event()
        """Set when nobody is to ask for an invocation any more."""

    async def watch_the_loop(self) -> None:
        """Measures how late the loop is, for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            # Whatever else keeps the processor busy: an environment that does nothing is there for the next.
            if self.running and clock() - due > LATE_SECONDS:
                self.on_time.clear()
            else:
                self.on_time.set()

    async def may_ask(self) -> bool:
        """Whether to ask for an invocation, as soon as that is known."""
        await self.unless_over(self.on_time.wait())
        return not self.no_more.is_set()

    async def unless_over(self, awaited: Awaitable[Any]) -> Any:
        """What is awaited, or None when nobody is to ask any more."""
        wanted, over = asyncio.ensure_future(awaited), asyncio.ensure_future(self.no_more.wait())
        try:
            await asyncio.wait({wanted, over}, return_when=asyncio.FIRST_COMPLETED)
            return wanted.result() if wanted.done() else None
        finally:
            wanted.cancel()
            over.cancel()


async def serve(app: AsgiApp, invoke: Invoke, host: str, at_most: int) -> None:
    """Serves up to `at_most` invocations at once, and returns after a SIGTERM.

    Raises RuntimeApiFailed when the Runtime API gives no more.
    """
    here, asked_to_stop = Here(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    lifespan = Lifespan(app)
    await lifespan.begin()
    watching = asyncio.create_task(here.watch_the_loop())
    pollers = [asyncio.create_task(_poll(here, app, invoke, host)) for _ in range(at_most)]
    stopping: asyncio.Future[Any] = asyncio.create_task(asked_to_stop.wait())
    # Before that a poller ends by failing alone.
    await asyncio.wait({stopping, *pollers}, return_when=asyncio.FIRST_COMPLETED)
    here.no_more.set()
    all_ended: asyncio.Future[Any] = asyncio.gather(*pollers, return_exceptions=True)
    await asyncio.wait({stopping, all_ended}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({all_ended}, timeout=float(os.environ.get(DRAIN_SECONDS, "0.2")))
    await lifespan.end()
    await asyncio.wait({all_ended}, timeout=LAST_SECONDS)
    watching.cancel()
    for poller in pollers:
        if poller.done() and (failure := poller.exception()) is not None:
            raise failure


async def _poll(here: Here, app: AsgiApp, invoke: Invoke, host: str) -> None:
    """Serves one invocation after the other; raises RuntimeApiFailed."""
    invocations = Invocations(host)
    while await here.may_ask():
        invocation = await here.unless_over(invocations.next())
        if invocation is None:
            break
        here.running += 1
        try:
            await asyncio.create_task(_alone(app, invoke, invocation))
        finally:
            here.running -= 1
    invocations.leave()


async def _alone(app: AsgiApp, invoke: Invoke, invocation: Answer) -> None:
    of_several.set(invocation)

    async def staying(*asgi: Any) -> None:
        try:
            await app(*asgi)
        except SystemExit as error:
            raise RuntimeError("the app would have ended the process of others") from error

    try:
        await invoke(staying, invocation)
    except RuntimeApiFailed:
        raise
    except Exception:  # the edge of an invocation: the others go on
        log(traceback.format_exc().rstrip())


class Lifespan:
    """The app's own beginning and end (ASGI); an app that knows of none raises at once, and has none."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._begun, self._ending = asyncio.Event(), asyncio.Event()

    async def begin(self) -> None:
        """Returns once the app has begun."""
        self._task = asyncio.create_task(self._live())
        await self._begun.wait()

    async def end(self) -> None:
        """Returns once the app has ended; how long it takes is its own to know."""
        self._ending.set()
        await self._task

    async def _live(self) -> None:
        told = [{"type": "lifespan.startup"}]

        async def receive() -> MutableMapping[str, Any]:
            if told:
                return told.pop()
            await self._ending.wait()
            return {"type": "lifespan.shutdown"}

        async def send(_: MutableMapping[str, Any]) -> None:
            self._begun.set()

        try:
            await self._app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        except Exception:
            if self._begun.is_set():
                log(traceback.format_exc().rstrip())
        self._begun.set()
