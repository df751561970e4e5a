"""The stream of a turn told again, by any instance: from its stored parts, and to its end when it still runs."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import timedelta

from minichat.domain.errors import ChatNotFound, FieldError, InvalidRequest, ServiceUnavailable, TurnNotFound
from minichat.domain.identity import Call, ChatId, Clock, RequestId
from minichat.domain.stream import Citations, Delta, Started
from minichat.domain.turn import Turn, TurnState, readable
from minichat.observability import logger
from minichat.services.channel import PING, Numbered
from minichat.services.finalize import terminal_event
from minichat.services.generate import seconds_for
from minichat.services.orphans import looked_at
from minichat.settings import Settings
from minichat.storage import messages, parts

EVENTS_AT_ONCE = 200
"""Events read in one go, so that the replay of a long stream needs little memory."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A turn, and the number of the last event of its stream that the client has."""

    turn: Turn
    after: int

    @property
    def is_over(self) -> bool:
        """Whether the client has everything there is."""
        return self.turn.state is not TurnState.RUNNING and self.after == _last(self.turn)


def resume(call: Call, chat_id: ChatId, request_id: RequestId, after: int, settings: Settings) -> Resumed:
    """What a client that has the events up to `after` still gets. A turn that is found dead has ended now.

    Raises ChatNotFound, TurnNotFound; InvalidRequest when `after` lies beyond the end, or behind events that are no
    longer kept.
    """
    turn = _read(call, chat_id, request_id, settings)
    if turn.state is not TurnState.RUNNING:
        if after > _last(turn):
            raise InvalidRequest(
                FieldError("Last-Event-ID", f"The stream ended with event {_last(turn)}.", "too_large")
            )
        kept = parts.are_kept(turn, call.now, kept=_kept(settings))
        if 0 < after < (turn.events_stored or 0) and not kept:
            raise InvalidRequest(
                FieldError("Last-Event-ID", "Single events are no longer kept: read the stream whole.", "expired")
            )
    return Resumed(turn, after)


async def follow(call: Call, resumed: Resumed, settings: Settings, clock: Clock) -> AsyncGenerator[Numbered, None]:
    """Everything after what the client has, to the turn's end; a ping while nothing happens.

    It ends without a terminal event when the turn was deleted meanwhile, or when the time of one invocation is up: the
    client resumes again.
    """
    turn, number = resumed.turn, resumed.after
    streaming = settings.streaming
    told_at = time.monotonic()
    deadline = told_at + seconds_for(call, settings)
    while time.monotonic() < deadline:
        now = replace(call, now=clock())
        try:
            while batch := await asyncio.to_thread(_batch, now, turn, number, settings):
                for one in batch:
                    yield one
                number, told_at = batch[-1].number or number, time.monotonic()
            if turn.state is not TurnState.RUNNING:
                for one in await asyncio.to_thread(_end, turn, number):
                    yield one
                return
            turn = await asyncio.to_thread(_read, now, turn.chat_id, turn.request_id, settings)
        except ServiceUnavailable:
            logger.warning("a stream that is followed cannot be read", extra={"turn_id": turn.turn_id})
        except (ChatNotFound, TurnNotFound):
            return
        if turn.state is not TurnState.RUNNING:
            continue
        if time.monotonic() - told_at >= streaming.ping_interval_seconds:
            yield PING
            told_at = time.monotonic()
        await asyncio.sleep(streaming.follow_interval_seconds)


def _read(call: Call, chat_id: ChatId, request_id: RequestId, settings: Settings) -> Turn:
    _, turn = looked_at(call, chat_id, request_id, settings)
    return readable(turn)


def _batch(call: Call, turn: Turn, number: int, settings: Settings) -> list[Numbered]:
    if not parts.are_kept(turn, call.now, kept=_kept(settings)):
        return []
    stored = parts.after(turn, number, until=turn.events_stored)
    return [Numbered(n, event) for n, event in itertools.islice(stored, EVENTS_AT_ONCE)]


def _end(turn: Turn, number: int) -> list[Numbered]:
    """What an ended turn has after its parts: the whole answer when there were none, and the terminal event."""
    last = _last(turn)
    if number >= last:
        return []
    terminal = Numbered(last, terminal_event(turn, turn.state, turn.error_code, turn.usage))
    return [*_from_message(turn, last), terminal] if number == 0 else [terminal]


def _from_message(turn: Turn, last: int) -> list[Numbered]:
    """The answer as one delta, with the number of the last event that it stands for, and what it cites."""
    started = Numbered(1, Started(turn.request_id, turn.assistant_message_id, True, turn.summary_tokens))
    if not turn.answered:
        return [started]
    message = messages.read(turn.tenant_id, turn.chat_id, turn.assistant_message_id)
    if message is None:
        return [started]
    # Citations are told right before the end: they keep the number that they had.
    citing = [Numbered(last - 1, Citations(message.citations))] if message.citations else []
    answer = [Numbered(last - 1 - len(citing), Delta(message.content))] if message.content else []
    return [started, *answer, *citing]


def _last(turn: Turn) -> int:
    """The number of the terminal event."""
    return turn.terminal_number or turn.events_stored or 0


def _kept(settings: Settings) -> timedelta:
    return timedelta(hours=settings.streaming.parts_kept_hours)
