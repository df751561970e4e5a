"""An answer while it comes: iterate over its events."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from minichat_client._following import Following
from minichat_client._wire import run
from minichat_client.errors import AnswerFailed
from minichat_client.events import DeltaEvent, DoneEvent, ErrorEvent, Event
from minichat_client.types import TurnStatus

Canceller = Callable[[str, str], Awaitable[TurnStatus]]


class AsyncAnswer:
    """The events of an answer, each once, however often the connection is lost.

    Nothing is sent before the first event is asked for. Leaving (`break`, `aclose`, the end of an `async with`) is not
    cancelling: the turn goes on, and `resume` joins it. Iterating again goes on where it stopped, after an exception
    too.
    """

    def __init__(self, following: Following, cancel: Canceller) -> None:
        self._following = following
        self._cancel = cancel
        self.text = ""
        """The text so far."""
        self.number = 0
        """Of the last event that was handed out: `resume(..., after=number)` goes on from there, in any process."""
        self.end: DoneEvent | ErrorEvent | None = None
        """The last event, once it came."""

    @property
    def request_id(self) -> str | None:
        """The turn's; of a retry or an edit it is known with the first event."""
        return self._following.request_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises Refused, Unreachable."""
        event = await self._following.next()
        if event is None:
            await self._following.close()
            raise StopAsyncIteration
        self.number = event.number
        if isinstance(event, DeltaEvent):
            self.text += event.content
        elif isinstance(event, DoneEvent | ErrorEvent):
            self.end = event
            await self._following.close()
        return event

    async def read(self) -> str:
        """The whole text, once it is there. Raises AnswerFailed, Refused, Unreachable."""
        async for _ in self:
            pass
        if isinstance(self.end, ErrorEvent):
            raise AnswerFailed(self.end.code, self.end.message)
        return self.text

    async def cancel(self) -> TurnStatus:
        """Cancels the turn, which ends within two seconds: read on to see how. Raises Refused, Unreachable."""
        if self.request_id is None:
            raise ValueError("The turn has no name before its first event.")
        return await self._cancel(self._following.chat_id, self.request_id)

    async def aclose(self, *, cancel: bool = False) -> None:
        """Leaves the connection; cancels the turn only when asked to, and only if it has not ended."""
        if cancel and self.end is None and self.request_id is not None:
            await self.cancel()
        await self._following.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Answer:
    """As AsyncAnswer, for threads."""

    def __init__(self, answer: AsyncAnswer) -> None:
        self._answer = answer

    @property
    def text(self) -> str:
        """The text so far."""
        return self._answer.text

    @property
    def number(self) -> int:
        """Of the last event that was handed out: `resume(..., after=number)` goes on from there, in any process."""
        return self._answer.number

    @property
    def end(self) -> DoneEvent | ErrorEvent | None:
        """The last event, once it came."""
        return self._answer.end

    @property
    def request_id(self) -> str | None:
        """The turn's; of a retry or an edit it is known with the first event."""
        return self._answer.request_id

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """The next event. Raises Refused, Unreachable."""
        try:
            return run(self._answer.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def read(self) -> str:
        """The whole text, once it is there. Raises AnswerFailed, Refused, Unreachable."""
        return run(self._answer.read())

    def cancel(self) -> TurnStatus:
        """Cancels the turn, which ends within two seconds: read on to see how. Raises Refused, Unreachable."""
        return run(self._answer.cancel())

    def close(self, *, cancel: bool = False) -> None:
        """Leaves the connection; cancels the turn only when asked to, and only if it has not ended."""
        run(self._answer.aclose(cancel=cancel))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
