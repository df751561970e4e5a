"""A program that sends a message with the Python client, and is killed at a step of it:

    python -m tests.support.http.dying_sender blocking|asynchronous URL TOKEN CHAT REQUEST CONTENT DEATH

DEATH is `unsent`, `sent` (its turn is there, nothing was heard), `answered` (the head of the response), the number of
an event, or `never`. It prints the numbers of the events that it saw, and the text.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

import httpx2

from minichat_client import AsyncMiniChat, MiniChat, problems


def die() -> NoReturn:
    """As when the machine's power fails."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_once_it_has_begun(url: str, token: str, chat_id: str, request_id: str) -> None:
    """Dies when the turn is there."""
    with MiniChat(url, token) as other:
        while True:
            with suppress(problems.TurnNotFound):
                other.turn(chat_id, request_id)
                die()


class DyingTransport(httpx2.HTTPTransport):
    """Dies before a request, or with the head of its response."""

    death = "never"

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response."""
        if self.death == "unsent":
            die()
        response = super().handle_request(request)
        if self.death == "answered":
            die()
        return response


class AsyncDyingTransport(httpx2.AsyncHTTPTransport):
    """The same on an event loop."""

    death = "never"

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response."""
        if self.death == "unsent":
            die()
        response = await super().handle_async_request(request)
        if self.death == "answered":
            die()
        return response


def blocking(url: str, token: str, chat_id: str, request_id: str, content: str) -> None:
    """Sends and reads."""
    numbers = []
    transport = DyingTransport()
    with MiniChat(url, token, transport=transport) as client:
        answer = client.send(chat_id, content, request_id=request_id)
        transport.death = DEATH
        for event in answer:
            numbers.append(event.number)
            if str(event.number) == DEATH:
                die()
    print(json.dumps([numbers, answer.text]))


async def asynchronous(url: str, token: str, chat_id: str, request_id: str, content: str) -> None:
    """The same on an event loop."""
    numbers = []
    transport = AsyncDyingTransport()
    async with AsyncMiniChat(url, token, transport=transport) as client:
        answer = client.send(chat_id, content, request_id=request_id)
        transport.death = DEATH
        async for event in answer:
            numbers.append(event.number)
            if str(event.number) == DEATH:
                die()
    print(json.dumps([numbers, answer.text]))


if __name__ == "__main__":
    kind, *sent, DEATH = sys.argv[1:]
    if DEATH == "sent":
        threading.Thread(target=die_once_it_has_begun, args=sent[:4], daemon=True).start()
    if kind == "blocking":
        blocking(*sent)
    else:
        asyncio.run(asynchronous(*sent))
