"""Requests with a token, and their refusals: what every operation shares."""

import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from minichat_client._patience import Patience
from minichat_client._wire import Reply, Request, Stream, Wire
from minichat_client.errors import MiniChatError, NotMiniChat, Unreachable, refusal

Token = str | Callable[[], str] | Callable[[], Awaitable[str]] | None

CALL_ATTEMPTS = 2
"""Of a request that may be repeated, after the first. A stream has more patience: somebody is reading it."""
_REPEATABLE = {"GET", "PUT", "DELETE"}
KEY = "idempotency-key"


def path_of(*parts: str) -> str:
    """A path of these parts."""
    # A slash in a name would end its part: the operator's API takes it encoded twice. Nothing else has one.
    return "/" + "/".join(quote(part.replace("/", "%2F"), safe=":") for part in parts)


def with_body(method: str, *parts: str, body: Any) -> Request:
    """A request with a JSON body."""
    # In ASCII, so that even half a surrogate pair reaches the server, which judges it.
    return Request(method, path_of(*parts), headers={"content-type": "application/json"}, content=_json(body))


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


class Exchange:
    """One caller's requests."""

    def __init__(self, wire: Wire, token: Token) -> None:
        self.wire = wire
        self._token = token
        self._bearer: str | None = None

    async def json(self, request: Request, *, repeatable: bool | None = None) -> Any:
        """The JSON of a successful response; None for one without a body.

        A request that may be repeated, by its method or its `Idempotency-Key` unless it is said, is: when it was lost,
        and when the server asks to wait. Raises Refused, Unreachable.
        """
        if repeatable is None:
            repeatable = request.method in _REPEATABLE or KEY in request.headers
        reply = await self._repeated(request, Patience(CALL_ATTEMPTS if repeatable else 0))
        if not reply.content:
            return None
        try:
            return json.loads(reply.content)
        except ValueError:
            raise self.not_ours() from None

    async def post_form(self, request: Request) -> None:
        """Posts a form of the API to where it says, without the token. Raises Refused, Unreachable."""
        patience = Patience(CALL_ATTEMPTS)
        while True:
            try:
                _successful(await self.wire.ask(request))
            except MiniChatError as error:
                await self._pause(patience, error)
            else:
                return

    async def open(self, request: Request) -> Stream:
        """A stream, or what came instead and is a success all the same. Raises Refused, Unreachable."""
        stream = await self.wire.open(await self._signed(request))
        if stream.reply.status == 401 and self._can_renew():
            stream = await self.wire.open(await self._signed(request, anew=True))
        _successful(stream.reply)
        return stream

    def not_ours(self) -> NotMiniChat:
        """What a success that is not Mini Chat's becomes."""
        return NotMiniChat("What answers there is not Mini Chat's API: is the URL whole?")

    async def _repeated(self, request: Request, patience: Patience) -> Reply:
        while True:
            try:
                reply = await self.wire.ask(await self._signed(request))
                if reply.status == 401 and self._can_renew():
                    reply = await self.wire.ask(await self._signed(request, anew=True))
                return _successful(reply)
            except MiniChatError as error:
                await self._pause(patience, error)

    async def _pause(self, patience: Patience, error: MiniChatError) -> None:
        """Waits for another try; raises the error when there shall be none."""
        seconds = patience.pause(error, begun=False)
        if seconds is None:
            raise error
        await self.wire.pause(seconds)

    def _can_renew(self) -> bool:
        return callable(self._token)

    async def _signed(self, request: Request, *, anew: bool = False) -> Request:
        if callable(self._token) and (anew or self._bearer is None):
            said = self._token()
            self._bearer = await said if inspect.isawaitable(said) else said
        token = self._bearer if callable(self._token) else self._token
        return request if token is None else request.with_header("authorization", f"Bearer {token}")


def _successful(reply: Reply) -> Reply:
    if reply.is_success:
        return reply
    if 300 <= reply.status < 400:
        raise Unreachable(f"The server sends elsewhere: {reply.headers.get('location', '')}.")
    raise refusal(reply.status, reply.headers, reply.content)
