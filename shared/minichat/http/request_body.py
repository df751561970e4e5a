"""The body of a request: bounded while it is read, and read to its end before a refusal ends."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Send

MAX_BODY_BYTES = 6_000_000
"""The largest request that Lambda accepts (AWS limit: 6 MB)."""
PASSED_OVER_BYTES = 64_000_000
PASSED_OVER_SECONDS, SILENT_SECONDS = 10.0, 2.0
"""Limits on reading a refused body: bytes, seconds in all, and seconds since its last chunk."""


class RequestBody:
    """The body as the app gets it from the server."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self._size = 0
        self._is_announced = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._awaits_leave = headers.get("expect", "").lower() == "100-continue"
        self._is_asked_for = False
        self._has_ended = False

    async def receive(self) -> Message:
        """The next message of the server.

        Raises HTTPException (413) for a body that is too large, whatever its Content-Length said.
        """
        message = await self._next()
        if self._size > MAX_BODY_BYTES:
            raise HTTPException(413, f"A request has at most {MAX_BODY_BYTES} bytes.")
        return message

    async def read_before_the_end(self, message: Message, status: int, send: Send) -> None:
        """Sends a message of the response; the last one of a refusal only after reading the body, within the limits.

        A server that closes a connection with unread data resets it, so a client that writes its whole body before
        reading would never see the response. One that reads meanwhile gets it at once.
        """
        if status >= 400 and message["type"] == "http.response.body" and not message.get("more_body"):
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(PASSED_OVER_SECONDS):
                    await self._pass_over()
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    async def _pass_over(self) -> None:
        # A client that waits for 100-continue sends nothing after a refusal, and reading would tell it to continue.
        sends = self._is_announced and (self._is_asked_for or not self._awaits_leave)
        while sends and not self._has_ended and self._size < PASSED_OVER_BYTES:
            async with asyncio.timeout(SILENT_SECONDS):
                await self._next()

    async def _next(self) -> Message:
        self._is_asked_for = True
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._has_ended = not message.get("more_body", False)
        return message
