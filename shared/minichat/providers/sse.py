"""Server-sent events from bytes, as they come: sans I/O, any chunk boundary (WHATWG HTML, 9.2.6).

Only CR, LF and CRLF end a line. `str.splitlines` would also split at U+2028 and others, which JSON may carry raw.
"""

from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 4 * 1024 * 1024


class EventTooLarge(ValueError):
    """One event is larger than any provider's should be."""


@dataclass(frozen=True, slots=True)
class WireEvent:
    """One event: its name (empty when it has none) and its data lines, joined."""

    name: str
    data: str


class EventParser:
    """Collects bytes and gives the events that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[WireEvent]:
        """The events that this chunk completes.

        Raises EventTooLarge, and UnicodeDecodeError for bytes that are not UTF-8.
        """
        self._buffer += chunk
        while (line := self._line()) is not None:
            self._size += len(line)
            if line:
                self._field(line.decode())
            elif self._data:
                yield WireEvent(self._name, "\n".join(self._data))
                self._name, self._data, self._size = "", [], 0
            else:
                self._name, self._size = "", 0
        if len(self._buffer) + self._size > MAX_EVENT_BYTES:
            raise EventTooLarge(f"more than {MAX_EVENT_BYTES} bytes")

    def _line(self) -> bytes | None:
        buffer = self._buffer
        ends = [at for at in (buffer.find(b"\n"), buffer.find(b"\r")) if at >= 0]
        if not ends:
            return None
        end = min(ends)
        if buffer[end] == 0x0D:
            # The LF of a CRLF may still be on its way.
            if end + 1 == len(buffer):
                return None
            length = 2 if buffer[end + 1] == 0x0A else 1
        else:
            length = 1
        line = bytes(buffer[:end])
        del buffer[: end + length]
        return line

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
