"""One answer, from bytes to chunks: what all adapters have in common, whatever their provider calls its events.

The content type is only a hint; the bytes decide. One JSON object is the whole answer of a server that does not stream,
an HTML page is no answer, and everything else is a stream.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from minichat.domain.usage import Usage
from minichat.providers.chunks import Failed, ProviderChunk
from minichat.providers.json_fields import UNREADABLE, document
from minichat.providers.sse import MAX_EVENT_BYTES, EventParser, EventTooLarge

PING = "ping"
DONE = "[DONE]"

_SHOWN_BYTES = 200
_BLANK = b"\xef\xbb\xbf \t\r\n"


class NotAnAnswer(ValueError):
    """The provider sent neither a stream nor an answer; the message shows how it begins."""


@dataclass(frozen=True, slots=True)
class Said:
    """One event: its name and its data; None when the data cannot be read."""

    kind: str
    data: dict[str, Any] | None


class Wire(Protocol):
    """Decodes bytes into events."""

    def feed(self, part: bytes) -> Iterator[Said]:
        """The events that these bytes complete, without those that carry nothing.

        Raises ValueError for bytes that are no event.
        """


class Meaning(Protocol):
    """Interprets the events of one API."""

    @property
    def usage(self) -> Usage:
        """What the provider has counted so far."""

    def said(self, kind: str, data: dict[str, Any], /) -> Iterator[ProviderChunk]:
        """What an event says, a terminal chunk last. Raises one of UNREADABLE."""

    def whole(self, data: dict[str, Any], /) -> Iterator[ProviderChunk]:
        """What an answer says that is not streamed, a terminal chunk last. Raises one of UNREADABLE."""

    def ended(self) -> Iterator[ProviderChunk]:
        """What the end of the events means, a terminal chunk last."""


class Events:
    """Server-sent events with JSON data; no event of a `known` kind may be lost.

    An event's `type` counts more than its name: gateways give all events the same name.
    """

    def __init__(self, known: Container[str]) -> None:
        self._parser = EventParser()
        self._known = known

    def feed(self, part: bytes) -> Iterator[Said]:
        """The events that these bytes complete. Raises EventTooLarge, and UnicodeDecodeError."""
        for event in self._parser.feed(part):
            data = event.data.strip()
            if data == DONE:
                yield Said(DONE, {})
            elif data:
                try:
                    found = document(data)
                except UNREADABLE:
                    # A known or unnamed event may hold text or an end; others hold neither.
                    if event.name in self._known or event.name in {"", "message"}:
                        yield Said(event.name, None)
                else:
                    yield Said(self._kind(event.name, found), found)

    def _kind(self, name: str, data: dict[str, Any]) -> str:
        kind = data.get("type")
        if not isinstance(kind, str):
            kind = name
        if kind not in self._known and (name == "error" or data.get("error")):
            return "error"
        return kind


class Reading:
    """Reads one answer as it comes (`transport.Reader`)."""

    def __init__(self, wire: Wire, meaning: Meaning) -> None:
        self._wire = wire
        self._meaning = meaning
        self._begins: bytes | None = None
        self._whole: bytearray | None = None
        self._begun = False

    @property
    def usage(self) -> Usage:
        """What the provider has counted so far."""
        return self._meaning.usage

    def feed(self, part: bytes) -> Iterator[ProviderChunk]:
        """The chunks that these bytes complete, a terminal one last.

        Raises ValueError for bytes that are no answer.
        """
        if self._begins is None:
            if not (part := part.lstrip(_BLANK)):
                return
            self._begins = part[:_SHOWN_BYTES]
            if part.startswith(b"<"):
                raise NotAnAnswer(self._shown())
            if part.startswith(b"{"):
                self._whole = bytearray()
        if self._whole is None:
            yield from self._streamed(part)
            return
        self._whole += part
        if len(self._whole) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"more than {MAX_EVENT_BYTES} bytes")

    def ended(self) -> Iterator[ProviderChunk]:
        """What the end of the bytes means, a terminal chunk last."""
        if self._whole is not None:
            try:
                yield from self._meaning.whole(document(bytes(self._whole)))
            except UNREADABLE:
                yield Failed("provider_error", f"neither a stream nor an answer: {self._shown()}", self.usage)
        elif self._begun:
            yield from self._meaning.ended()
        else:
            yield Failed("provider_error", f"no event of a stream: {self._shown()}", self.usage)

    def _streamed(self, part: bytes) -> Iterator[ProviderChunk]:
        for said in self._wire.feed(part):
            if said.data is None:
                yield self._unreadable(said)
                continue
            try:
                for chunk in self._meaning.said(said.kind, said.data):
                    if self._begun and isinstance(chunk, Failed):
                        # Once the answer has begun, a failure is not a refusal.
                        yield replace(chunk, refused=False)
                    else:
                        yield chunk
            except UNREADABLE:
                yield self._unreadable(said)
            self._begun = self._begun or said.kind != PING

    def _unreadable(self, said: Said) -> Failed:
        return Failed("provider_error", f"unreadable event {said.kind}", self.usage)

    def _shown(self) -> str:
        return (self._begins or b"").decode(errors="replace")
