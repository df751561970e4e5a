"""The two clients: MiniChat for threads, scripts and notebooks, AsyncMiniChat for event loops."""

import functools
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx2

from minichat_client._operations import Operations
from minichat_client._wire import AsyncWire, BlockingWire, run
from minichat_client.answers import Answer, AsyncAnswer
from minichat_client.errors import MiniChatError
from minichat_client.pages import AsyncPages, Pages

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 10
"""To go on with a stream, one after another and in vain: about 50 seconds."""


class AsyncMiniChat(Operations):
    """A caller's way to Mini Chat, on an event loop.

    `base_url` is the API's, such as `https://api.example.org/mini-chat/v1`. `token` is a token, an API key, or a
    function that gives one, asynchronous or not: it is asked when a token is first needed and after each 401. A lost
    stream is gone on with after `attempts` tries in vain at most; `on_reconnect` is told what each was lost by.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str] | Callable[[], Awaitable[str]] | None = None,
        *,
        attempts: int = ATTEMPTS,
        on_reconnect: Callable[[MiniChatError], None] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._wire = AsyncWire(self.base_url, transport)
        super().__init__(self._wire, token, attempts, on_reconnect)

    async def aclose(self) -> None:
        """Closes every connection; no turn is cancelled."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _now(
    operation: Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["MiniChat", P], T]:
    @functools.wraps(operation)
    def done(client: "MiniChat", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(operation(client.operations, *args, **kwargs))

    return done


def _answered(
    operation: Callable[Concatenate[Operations, P], AsyncAnswer],
) -> Callable[Concatenate["MiniChat", P], Answer]:
    @functools.wraps(operation)
    def begun(client: "MiniChat", /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return Answer(operation(client.operations, *args, **kwargs))

    return begun


def _listed(
    operation: Callable[Concatenate[Operations, P], AsyncPages[T]],
) -> Callable[Concatenate["MiniChat", P], Pages[T]]:
    @functools.wraps(operation)
    def listed(client: "MiniChat", /, *args: P.args, **kwargs: P.kwargs) -> Pages[T]:
        return Pages(operation(client.operations, *args, **kwargs))

    return listed


class MiniChat:
    """As AsyncMiniChat, for threads: one client may be used by several. `token` may not be asynchronous."""

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str] | None = None,
        *,
        attempts: int = ATTEMPTS,
        on_reconnect: Callable[[MiniChatError], None] | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._wire = BlockingWire(self.base_url, transport)
        self.operations = Operations(self._wire, token, attempts, on_reconnect)

    create_chat = _now(Operations.create_chat)
    chats = _listed(Operations.chats)
    chat = _now(Operations.chat)
    rename_chat = _now(Operations.rename_chat)
    delete_chat = _now(Operations.delete_chat)
    messages = _listed(Operations.messages)
    react = _now(Operations.react)
    send = _answered(Operations.send)
    retry = _answered(Operations.retry)
    edit = _answered(Operations.edit)
    resume = _answered(Operations.resume)
    turn = _now(Operations.turn)
    delete_turn = _now(Operations.delete_turn)
    cancel = _now(Operations.cancel)
    attach = _now(Operations.attach)
    attachment = _now(Operations.attachment)
    attachments = _listed(Operations.attachments)
    delete_attachment = _now(Operations.delete_attachment)
    models = _now(Operations.models)
    model = _now(Operations.model)
    quota = _now(Operations.quota)
    usage = _now(Operations.usage)
    health = _now(Operations.health)
    call = _now(Operations.call)

    def close(self) -> None:
        """Closes every connection; no turn is cancelled."""
        run(self._wire.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
