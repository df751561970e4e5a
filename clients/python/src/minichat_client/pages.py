"""Lists, page by page as they are read."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar

from minichat_client._wire import run

T = TypeVar("T")

Fetch = Callable[[str | None], Awaitable[tuple[list[T], str | None]]]
"""One page from its cursor: what is on it, and the cursor of the next one."""


class AsyncPages(Generic[T]):
    """Everything in a list, in its order; a page is fetched when it is needed."""

    def __init__(self, fetch: Fetch[T]) -> None:
        self._fetch = fetch
        self._ready: deque[T] = deque()
        self._cursor: str | None = None
        self._is_last = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next one. Raises Refused, Unreachable."""
        # A page may be empty and have a next one: a filter looks at so many chats in one go.
        while not self._ready and not self._is_last:
            items, self._cursor = await self._fetch(self._cursor)
            self._ready.extend(items)
            self._is_last = self._cursor is None
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()


class Pages(Generic[T]):
    """As AsyncPages, for threads."""

    def __init__(self, pages: AsyncPages[T]) -> None:
        self._pages = pages

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next one. Raises Refused, Unreachable."""
        try:
            return run(self._pages.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
