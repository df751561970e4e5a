"""One answer, whole, over as many connections as it takes: a client that resumes loses nothing and repeats nothing."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from minichat.cli.api import Api, ApiRefused, SseEvent, Unreachable

WAITS_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before successive attempts that bring nothing; after the last, the client gives up."""
_TERMINAL = {"done", "error"}


@dataclass(frozen=True, slots=True)
class Question:
    """A request that begins an answer, and a way to find out whether it began when the response was lost."""

    method: str
    path: tuple[str, ...]
    body: dict[str, Any] | None
    begun: Callable[[], str | None]


def sent(api: Api, chat_id: str, request_id: str, body: dict[str, Any]) -> Question:
    """A message under a request id that the client chose: it can be repeated, and is answered once."""

    def begun() -> str | None:
        try:
            api.call("GET", "chats", chat_id, "turns", request_id)
        except ApiRefused as refusal:
            if refusal.code == "turn_not_found":
                return None
            raise
        return request_id

    path = ("chats", chat_id, "messages:stream")
    return Question("POST", path, {**body, "request_id": request_id}, begun)


def instead(api: Api, chat_id: str, request_id: str, content: str | None) -> Question:
    """Another answer in place of the latest turn's: to `content`, or without it to the same message."""

    def begun() -> str | None:
        latest = latest_turn(api, chat_id)
        return latest if latest != request_id else None

    turn = ("chats", chat_id, "turns", request_id)
    if content is None:
        return Question("POST", (*turn, "retry"), None, begun)
    return Question("PATCH", turn, {"content": content}, begun)


def latest_turn(api: Api, chat_id: str) -> str | None:
    """The request id of a chat's latest turn; None before the first.

    Raises ApiRefused, Unreachable.
    """
    newest = {"limit": 1, "$orderby": "created_at desc"}
    page = api.call("GET", "chats", chat_id, "messages", **newest)
    return next((str(message["request_id"]) for message in page["items"]), None)


def events(
    api: Api, chat_id: str, question: Question | str, lost: Callable[[str], None]
) -> Generator[SseEvent, None, None]:
    """Every event of an answer once, up to its last one, without pings.

    A request id instead of a question joins a running answer. `lost` gets the reason for each reconnection.
    Raises ApiRefused, and Unreachable after the last attempt.
    """
    request_id = question if isinstance(question, str) else None
    number, in_vain, first = 0, 0, True
    while True:
        try:
            if request_id is None and not first:
                assert isinstance(question, Question)
                request_id = question.begun()
            with _opened(api, chat_id, request_id or question, number) as stream:
                for event in _after(number, stream):
                    in_vain, number = 0, event.number
                    if event.name == "stream_started":
                        request_id = str(event.data["request_id"])
                    yield event
                    if event.name in _TERMINAL:
                        return
            why = "The stream ended before its end."
        except Unreachable as error:
            why = str(error)
        except ApiRefused as refusal:
            if first or not _passes(refusal):
                raise
            why = str(refusal)
        first = False
        if in_vain == len(WAITS_SECONDS):
            raise Unreachable(f"{why} Given up after {in_vain} attempts.")
        lost(why)
        time.sleep(WAITS_SECONDS[in_vain])
        in_vain += 1


def _opened(api: Api, chat_id: str, wanted: Question | str, after: int) -> AbstractContextManager[Iterator[SseEvent]]:
    if isinstance(wanted, Question):
        return api.events(wanted.method, *wanted.path, body=wanted.body)
    return api.events("GET", "chats", chat_id, "turns", wanted, "stream", after=after)


def _after(number: int, stream: Iterator[SseEvent]) -> Iterator[SseEvent]:
    for event in stream:
        if event.number > number:
            number = event.number
            yield event


def _passes(refusal: ApiRefused) -> bool:
    """Whether another attempt may succeed: the server is busy, or the first attempt has only just arrived."""
    return refusal.status in {409, 429} or refusal.status >= 500
