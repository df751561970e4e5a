"""One answer over as many connections as it takes: which request comes next, and which events are new.

The promises this stands on are the contract's (3, rules 9 and 13): an event's number never names two events, a stream
goes on after any event, and a request repeated with `Last-Event-ID: 0` is told what its first try began.
"""

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from minichat_client._decoding import decoded
from minichat_client._exchange import Exchange, path_of
from minichat_client._patience import Patience
from minichat_client._sse import Frame, FrameParser
from minichat_client._wire import Request, Stream
from minichat_client.errors import MiniChatError, Refused, Unreachable
from minichat_client.events import EVENTS, DoneEvent, ErrorEvent, Event, StreamStartedEvent, UnknownEvent

POSITION = "last-event-id"


class Following:
    """The events of an answer, each once, up to its last one.

    `question` is the request that begins it, or None to join one that has begun. `may_be_known`: even the first try
    may find its turn there, because the caller named the request.
    """

    def __init__(self, exchange: Exchange, chat_id: str, question: Request | None, *, attempts: int) -> None:
        self.chat_id = chat_id
        self.request_id: str | None = None
        self.number = 0
        self.may_be_known = False
        self.on_lost: Callable[[MiniChatError], None] | None = None
        self._exchange = exchange
        self._question = question
        self._tried = False
        self._patience = Patience(attempts)
        self._stream: Stream | None = None
        self._parser = FrameParser()
        self._ready: deque[Event] = deque()
        self._is_over = False

    async def next(self) -> Event | None:
        """The next event; None after the last.

        Raises Refused; Unreachable when the server could not be reached as often as is tried. Called again, it goes on.
        """
        while not self._ready and not self._is_over:
            try:
                if self._stream is None:
                    await self._connect()
                else:
                    self._take(await self._stream.read())
            except MiniChatError as error:
                await self._lost(error)
        return self._ready.popleft() if self._ready else None

    async def close(self) -> None:
        """Leaves the connection, not the turn."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.close()

    async def _connect(self) -> None:
        request = self._next_request()
        self._parser = FrameParser()
        stream = await self._exchange.open(request)
        self._tried = True
        if stream.reply.is_stream:
            self._stream = stream
        elif stream.reply.status == 204:  # everything was told
            self._is_over = True
        else:
            raise self._exchange.not_ours()

    def _next_request(self) -> Request:
        if self._question is None or self.number:
            assert self.request_id is not None, "an answer that is joined, or has begun, is named"
            path = path_of("chats", self.chat_id, "turns", self.request_id, "stream")
            return Request("GET", path, headers={POSITION: str(self.number)})
        if self._tried or self.may_be_known:
            return self._question.with_header(POSITION, "0")
        return self._question

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            raise Unreachable("The stream ended before its end.")
        try:
            for frame in self._parser.feed(chunk):
                self._see(frame)
        except ValueError:
            raise Unreachable("The stream cannot be understood.") from None

    def _see(self, frame: Frame) -> None:
        if frame.number <= self.number:  # a ping, or what was told before
            return
        event = event_of(frame)
        if isinstance(event, StreamStartedEvent):
            self.request_id = event.request_id
        self.number = frame.number
        self._patience.progressed()
        self._ready.append(event)
        self._is_over = isinstance(event, DoneEvent | ErrorEvent)

    async def _lost(self, error: MiniChatError) -> None:
        """Waits for another try; raises what was lost by when there shall be none."""
        await self.close()
        seconds = self._patience.pause(error, begun=self._tried)
        if isinstance(error, Unreachable):
            self._tried = True  # it may have arrived
        if seconds is None:
            raise self._patience.given_up(error)
        if isinstance(error, Refused) and error.status >= 500:
            self._tried = True
        if self.on_lost is not None:
            self.on_lost(error)
        await self._exchange.wire.pause(seconds)


def event_of(frame: Frame) -> Event:
    """An event as it was sent. Raises ValueError, NotMiniChat for what is none."""
    said: Any = json.loads(frame.data)
    kind = EVENTS.get(frame.name)
    if kind is None:
        return UnknownEvent(number=frame.number, name=frame.name, data=said)
    return decoded(kind, said, number=frame.number)
