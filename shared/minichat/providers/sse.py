"""An incremental, sans-I/O parser of server-sent events, cut anywhere into chunks (WHATWG HTML, 9.2.6).

Only CR, LF and CRLF end a line. `str.splitlines` would also split at U+2028 and others, which JSON may carry raw.
"""

from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 4 * 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event is larger than any provider should send."""


@dataclass(frozen=True, slots=True)
class WireEvent:
    """One event: its name (empty when it has none), its joined data lines, and its id if it has one."""

    name: str
    data: str
    id: str | None = None


class EventParser:
    """Collects bytes and yields complete events; an event cut off by the stream's end is dropped."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._after_cr = False
        self._first_line = True
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[WireEvent]:
        """The events that this chunk completes; iterate to the end before the next chunk.

        Raises EventTooLarge, and UnicodeDecodeError for bytes that are not UTF-8.
        """
        if not chunk:
            return
        # A CR ends its line at once: waiting for an LF would delay an event, and lose a stream's last one.
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        # Of bytes, unlike text, only CR, LF and CRLF end a line.
        for part in chunk.splitlines(keepends=True):
            line = part.rstrip(b"\r\n")
            self._size += len(line)
            if self._size > MAX_EVENT_BYTES:
                raise EventTooLarge(f"more than {MAX_EVENT_BYTES} bytes")
            if len(line) == len(part):
                self._begun += line
            elif (event := self._ended(line)) is not None:
                yield event

    def _ended(self, line: bytes) -> WireEvent | None:
        """The event that is complete with this line, the part of it that came last."""
        if self._begun:
            line = bytes(self._begun) + line
            self._begun.clear()
        if self._first_line:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._first_line = False
        if line.startswith(b":"):
            self._size -= len(line)  # keep-alives belong to no event, however many there are
            return None
        if line:
            self._field(line.decode())
            return None
        event = WireEvent(self._name, "\n".join(self._data), self._id) if self._data else None
        self._name, self._data, self._id, self._size = "", [], None, 0
        return event

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id":
            self._id = value
