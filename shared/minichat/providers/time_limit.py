"""A time limit on each of many waits of a task, with one timer for all of them.

`asyncio.timeout` makes a timer and drops it for every wait. The parts of a stream are many and mostly there already, so
that was a tenth of the work of reading one.
"""

import asyncio
from types import TracebackType


class TimeLimit:
    """`with` it around a wait that must end until `by`, in seconds of the loop's clock; `close` it after the last one.

    Raises TimeoutError from a wait that did not, as `asyncio.timeout_at` does.
    """

    def __init__(self, by: float) -> None:
        self.by = by
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waits: asyncio.Task[object] | None = None
        self._cancelled_before = 0
        self._is_over = False

    def __enter__(self) -> None:
        self._waits = task = asyncio.current_task()
        assert task is not None
        self._cancelled_before = task.cancelling()
        if self._timer is None or self._timer.when() > self.by:
            self._wake_up()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self._waits = self._waits, None
        if self._is_over and task is not None:
            self._is_over = False
            # Somebody else may have cancelled the task as well: that is theirs to see.
            if task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def close(self) -> None:
        """Drops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_up(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self.by, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._waits is None:
            return  # the next wait makes a timer
        if self._loop.time() < self.by:
            self._wake_up()  # what was waited for when the timer was made has come
        else:
            self._is_over = True
            self._waits.cancel()
