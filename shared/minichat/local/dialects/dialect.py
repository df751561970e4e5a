"""How each provider's API says the same answer on the wire, shaped as its public reference has it.

The scripted provider decides what is said and when; a dialect turns it into bytes. Official clients accept them
(`tests/integration/test_official_clients.py`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

SECRETS = (
    "https://api.example.com",
    "sk-proj-0123456789abcdef",
    "resp_0123456789",
    "req_0123456789",
    "org-0123456789",
    "arn:aws:bedrock:us-east-1:123456789012",
    "IQoJb3JpZ2luX2VjEMv//////////wEaCXVzLWVhc3QtMSJHMEUCIQD+0123456789",
    "0123456789abcdef0123456789abcdef",
)
"""What providers say in their errors, and nobody else should; the key that they got, too."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an answer reports to have used; `given` includes what was read from and written to the cache."""

    given: int
    made: int
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Cite:
    """A source of the whole answer: a page by its address, or a file by its id; `title` is a file's name, too."""

    source: Literal["file", "web"]
    target: str
    title: str


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: the number of its call, who gives it, its text, its usage, what is said if it fails, its sources.

    With `refuses` its text is what the model says instead of an answer.
    """

    number: int
    model: str
    text: str
    tokens: Tokens | None
    message: str
    cites: tuple[Cite, ...] = ()
    refuses: bool = False

    @property
    def pages(self) -> list[Cite]:
        """The sources that are pages: most APIs know no others."""
        return [cite for cite in self.cites if cite.source == "web"]

    @property
    def quoted(self) -> str:
        """What each source says, where an API tells that."""
        return f"As told: {self.text[:100]}"


class Dialect(Protocol):
    """One answer in one wire format, event by event or whole."""

    media_type: str

    def __init__(self, said: Said) -> None: ...

    def opening(self) -> Iterator[bytes]:
        """What comes before everything else."""

    def tool_begins(self, name: str) -> Iterator[bytes]:
        """A tool is at work; nothing when this API has none of that name."""

    def tool_ends(self, name: str) -> Iterator[bytes]:
        """It is done."""

    def text_begins(self) -> Iterator[bytes]:
        """What announces the text."""

    def delta(self, text: str) -> bytes:
        """A piece of the text."""

    def raw(self, payload: bytes) -> bytes:
        """An event that would be a piece of the text, were it not for what it holds."""

    def unknown(self) -> bytes:
        """An event that no client knows yet."""

    def completed(self) -> Iterator[bytes]:
        """The end of a whole answer, or of a refusal."""

    def incomplete(self, reason: str) -> Iterator[bytes]:
        """The end of an answer that was cut."""

    def failed(self, code: str, *, flat: bool) -> Iterator[bytes]:
        """The end by a failure; `flat` chooses the other shape where there are two."""

    def whole(self) -> dict[str, Any]:
        """The answer to a request that wants no stream."""

    @staticmethod
    def problem(status: int, message: str) -> dict[str, Any]:
        """The body of a refusal."""


def sse(name: str | None, data: dict[str, Any] | bytes) -> bytes:
    """A server-sent event."""
    told = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + told + b"\n\n"
