"""A parser of server-sent events (WHATWG HTML, 9.2.6) that does no I/O: bytes in, events out, cut anywhere.

Only CR, LF and CRLF end a line; `str.splitlines` would also split at U+2028 and others, which JSON may carry raw.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_LINE_END = re.compile(rb"\r\n|\r|\n")


class Frame(NamedTuple):
    """One event as it was sent: its name, its data, and its number, 0 where it has none."""

    name: str
    data: str
    number: int


class FrameParser:
    """Collects the bytes of one connection. What a cut leaves unfinished is dropped: the server tells it again."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._held = b""
        self._fields: dict[str, str] = {}

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The events that this chunk completes; read them all before the next chunk.

        Raises ValueError for what is no such stream.
        """
        chunk = self._held + chunk
        # The LF of a CRLF may be the first byte of the next chunk.
        self._held = b"\r" if chunk.endswith(b"\r") else b""
        first, *more = _LINE_END.split(chunk.removesuffix(self._held) if self._held else chunk)
        self._begun.append(first)
        for start in more:
            line, self._begun = b"".join(self._begun), [start]
            if line:
                self._take(line.decode())
            elif (frame := self._ended()) is not None:
                yield frame

    def _take(self, line: str) -> None:
        name, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if name == "data" and name in self._fields:
            value = f"{self._fields[name]}\n{value}"
        self._fields[name] = value

    def _ended(self) -> Frame | None:
        said, self._fields = self._fields, {}
        return Frame(said.get("event", "message"), said["data"], int(said.get("id") or 0)) if "data" in said else None
