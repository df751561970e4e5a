"""How the Runtime API may frame and deliver an event, and what may go wrong with it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

Framing = Callable[[bytes], bytes]
"""From a body to the rest of its answer: the headers that frame it, an empty line, and the body."""


def with_length(body: bytes) -> bytes:
    """A length, then the body."""
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def in_chunks(size: int, *, extension: bytes = b"", trailers: bytes = b"") -> Framing:
    """Chunks of so many bytes, each with this extension, and these lines after the last."""

    def framed(body: bytes) -> bytes:
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
        return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"

    return framed


def until_close(body: bytes) -> bytes:
    """Neither: the body ends with the connection, which has to be closed then."""
    return b"Connection: close\r\n\r\n" + body


def as_aws(body: bytes) -> bytes:
    """A length up to 2,048 bytes, one chunk above."""
    return with_length(body) if len(body) <= 2048 else in_chunks(len(body))(body)


@dataclass
class Delivery:
    """How an event travels: in pieces of so many bytes with a pause after each, and what the connection does then."""

    framing: Framing = as_aws
    interim: bytes = b""
    more_headers: bytes = b""
    piece_bytes: int | None = None
    pause_seconds: float = 0
    closes: bool = False


@dataclass(frozen=True)
class Refuses:
    """A request is answered with this status, a response after so many of its chunks.

    What is left of it is read, or is not: then the connection is closed, soon or when this happens.
    """

    status: int
    after: int = 0
    reads_on: bool = True
    closes: asyncio.Event | None = None


@dataclass(frozen=True)
class Drops:
    """The connection is closed: after so many bytes of an event, or so many chunks of a response."""

    after: int = 0


@dataclass(frozen=True)
class Holds:
    """Nothing of a response is read until this happens, after so many of its chunks."""

    until: asyncio.Event
    after: int = 0


Fault = Refuses | Drops | Holds
