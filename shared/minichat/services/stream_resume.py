"""Any instance tells the stream of a turn again: from its stored parts, and to its end if it still runs.

All readers of another process's turn share this code and one numbering: a client that resumes the stream, one that
sends an answered message again, and a client library that repeats its request after a cut (contract 3).
"""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

from minichat import greenlets
from minichat.domain.errors import ChatNotFound, FieldError, InvalidRequest, ServiceUnavailable, TurnNotFound
from minichat.domain.identity import Call, ChatId, Clock, RequestId
from minichat.domain.turn import Turn, TurnState, readable
from minichat.observability import logger
from minichat.services.channel import PING, Numbered
from minichat.services.orphans import read_and_repair
from minichat.services.stream_replay import StreamPosition, last_number, marked, rebuilt
from minichat.settings import Settings
from minichat.storage import followers, parts


@dataclass(frozen=True, slots=True)
class Resumed:
    """A turn, and the number of the last event of its stream that the client has.

    `kept`: whether its single events are still stored. A `replay` answers a client that sends the message again: the
    same stream, marked as not new, and without the quota of that time (contract 3, rule 5). `place` is one of those
    that a user has for following running turns; what has ended is told at once, and needs none.
    """

    turn: Turn
    after: int
    kept: bool = True
    replay: bool = False
    place: followers.FollowerPlace | None = None

    @property
    def is_over(self) -> bool:
        """Whether the client has everything there is."""
        return self.turn.state is not TurnState.RUNNING and self.after == last_number(self.turn)


def resume(call: Call, chat_id: ChatId, request_id: RequestId, after: int, settings: Settings) -> Resumed:
    """What a client that has the events up to `after` still gets. Ends the turn first if it is dead.

    Raises ChatNotFound, TurnNotFound; InvalidRequest when `after` lies beyond the end, or the events after it are no
    longer kept; RateLimited when the user follows as many running turns as may be at once.
    """
    return resumed(call, _read(call, chat_id, request_id, settings), after, settings)


def resumed(call: Call, turn: Turn, after: int, settings: Settings) -> Resumed:
    """As `resume`, of a turn that was read."""
    kept = _are_kept(call, turn, settings)
    if turn.state is not TurnState.RUNNING:
        if after > last_number(turn):
            raise InvalidRequest(
                FieldError("Last-Event-ID", f"The stream ended with event {last_number(turn)}.", "too_large")
            )
        if not kept and rebuilt(turn, StreamPosition.after(after)) is None:
            raise InvalidRequest(
                FieldError("Last-Event-ID", "Single events are no longer kept: read the stream whole.", "expired")
            )
        return Resumed(turn, after, kept)
    most = settings.rates.followers
    return Resumed(turn, after, kept, place=followers.take(call, most) if most else None)


def replay(call: Call, turn: Turn, settings: Settings) -> Resumed:
    """A turn that has ended, from its start, for a client that sends its message again."""
    return Resumed(turn, 0, _are_kept(call, turn, settings), replay=True)


async def follow(
    call: Call, resumed: Resumed, settings: Settings, clock: Clock
) -> AsyncGenerator[Sequence[Numbered], None]:
    """Everything after what the client has, to the turn's end; a ping while nothing happens.

    It ends without a terminal event when the turn was deleted meanwhile, when the next events have expired and cannot
    be rebuilt, when its place was lost, or when the invocation's time is up: the client resumes again.
    """
    place = None if resumed.place is None else _Held(resumed.place)
    try:
        async for batch in _followed(call, resumed, settings, clock):
            yield batch
            if place is not None and not await place.is_still_held(clock):
                return
    finally:
        if place is not None:
            await place.given_back()


class _Held:
    """A follower's place, as long as it follows."""

    _leaving: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(self, place: followers.FollowerPlace) -> None:
        self._place, self._renewed_at = place, time.monotonic()

    async def is_still_held(self, clock: Clock) -> bool:
        """Renews the place when it is time to; False when another has it."""
        if time.monotonic() - self._renewed_at < followers.RENEW_SECONDS:
            return True
        try:
            place = await greenlets.run(followers.renew, self._place, clock())
        except ServiceUnavailable:
            return True
        if place is None:
            return False
        self._place, self._renewed_at = place, time.monotonic()
        return True

    async def given_back(self) -> None:
        """Frees the place, even where the client's going cancels whoever awaits this."""
        task = asyncio.create_task(self._give_back())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        await asyncio.shield(task)

    async def _give_back(self) -> None:
        with suppress(ServiceUnavailable):
            await greenlets.run(followers.give_back, self._place)


async def _followed(
    call: Call, resumed: Resumed, settings: Settings, clock: Clock
) -> AsyncGenerator[Sequence[Numbered], None]:
    turn, at = resumed.turn, StreamPosition.after(resumed.after)
    streaming = settings.streaming
    told_at = time.monotonic()
    deadline = told_at + replace(call, now=clock()).seconds_left(at_most=streaming.deadline_seconds)
    while time.monotonic() < deadline:
        batch: list[Numbered] = []
        has_more = is_last = False
        try:
            step = await greenlets.run(_next, replace(call, now=clock()), turn, at, settings, is_kept=resumed.kept)
            batch, turn, has_more, is_last = step
            has_more |= turn.state is not TurnState.RUNNING
        except ServiceUnavailable:
            logger.warning("a stream that is followed cannot be read", extra={"turn_id": turn.turn_id})
        except (ChatNotFound, TurnNotFound):
            return
        if batch:
            yield [marked(one) for one in batch] if resumed.replay else batch
            at, told_at = functools.reduce(StreamPosition.moved, batch, at), time.monotonic()
        if is_last:
            return
        if has_more:
            continue
        if time.monotonic() - told_at >= streaming.ping_interval_seconds:
            yield (PING,)
            told_at = time.monotonic()
        await asyncio.sleep(streaming.follow_interval_seconds)


def _read(call: Call, chat_id: ChatId, request_id: RequestId, settings: Settings) -> Turn:
    _, turn = read_and_repair(call, chat_id, request_id, settings)
    return readable(turn)


def _next(
    call: Call, turn: Turn, at: StreamPosition, settings: Settings, *, is_kept: bool
) -> tuple[list[Numbered], Turn, bool, bool]:
    """The next events, the turn as it is now, whether there are more, and whether these are the very last."""
    if turn.state is TurnState.RUNNING:
        batch, has_more = _stored(turn, at, None)
        # The turn is read after its events: once it has ended, a zombie may have stored events that never count.
        turn = _read(call, turn.chat_id, turn.request_id, settings)
        if turn.state is not TurnState.RUNNING:
            batch = [one for one in batch if one.number is not None and one.number <= (turn.events_stored or 0)]
        return batch, turn, has_more, False
    if is_kept and (batch := _stored(turn, at, turn.events_stored or 0)[0]):
        return batch, turn, True, False
    return rebuilt(turn, at) or [], turn, False, True


def _stored(turn: Turn, at: StreamPosition, until: int | None) -> tuple[list[Numbered], bool]:
    events, more = parts.page(turn, at.number, until=until)
    return [Numbered(number, event) for number, event in events], more


def _are_kept(call: Call, turn: Turn, settings: Settings) -> bool:
    """Decided once per stream: DynamoDB removes parts late, and not all at once."""
    return parts.are_kept(turn, call.now, kept=timedelta(hours=settings.streaming.parts_kept_hours))
