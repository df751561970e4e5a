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
        if end := max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1:
            self._begun += chunk[:end]
            # Of bytes, unlike text, only CR, LF and CRLF end a line.
            lines = self._begun.splitlines()
            self._begun.clear()
            for line in lines:
                self._size += len(line)
                self._check_size()
                if self._first_line:
                    line = line.removeprefix(_BYTE_ORDER_MARK)  # noqa: PLW2901  only this once
                    self._first_line = False
                if line[:1] == b":":
                    self._size -= len(line)  # keep-alives belong to no event, however many there are
                elif line:
                    self._field(line.decode())
                elif (event := self._ended()) is not None:
                    yield event
        self._begun += chunk[end:]
        self._check_size()

    def _check_size(self) -> None:
        if self._size + len(self._begun) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"more than {MAX_EVENT_BYTES} bytes")

    def _ended(self) -> WireEvent | None:
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
