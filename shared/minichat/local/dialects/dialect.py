"""How each provider's API says the same answer on the wire, shaped as its public reference has it.

The scripted provider decides what is said and when; a dialect turns it into bytes. Official clients accept them
(`tests/integration/test_official_clients.py`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
class Work:
    """What an answer's tools did: ids and names of the files that were found, what was looked for on the web, and what
    the code printed; `included` names what of it the request wants to be told (OpenAI's `include`)."""

    files: tuple[tuple[str, str], ...] = ()
    query: str = "as told"
    output: str = "1 + 1 = 2"
    included: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """One answer: the number of its call, who gives it, its text, its usage, what is said if it fails, its sources.

    With `refuses` its text is what the model says instead of an answer.
    """

    number: int
    model: str
    text: str
    tokens: Tokens | None
    message: str
    cites: tuple[Cite, ...] = ()
    work: Work = field(default_factory=Work)
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

    def __init__(self, said: ScriptedReply) -> None: ...

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


_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_BEDROCK_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{1,256}")


def wrong_identity(body: Mapping[str, Any], traceparent: str | None) -> str | None:
    """What a provider refuses in what a request says of who asks, or None.

    OpenAI: a `user` of 64 characters, 16 pairs of `metadata`, keys of 64 and values of 512 characters, and none of a
    chat completion that is not stored. Anthropic: a `user_id` of 256 characters, and nothing else. Bedrock: 16 pairs of
    `requestMetadata`, of 256 characters each and of few kinds.
    """
    if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
        return "The header traceparent is malformed."
    user, metadata = body.get("user"), body.get("metadata") or {}
    if "user_id" in metadata:
        fine = metadata.keys() == {"user_id"} and len(metadata["user_id"]) <= 256
        return None if fine else "metadata: extra inputs are not permitted"
    if user is not None and not (isinstance(user, str) and len(user) <= 64):
        return "Invalid 'user': string too long."
    if metadata and "messages" in body and not body.get("store"):
        return "The 'metadata' parameter is only allowed when 'store' is enabled."
    if len(metadata) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in metadata.items()):
        return "Invalid 'metadata'."
    told = body.get("requestMetadata") or {}
    fine = len(told) <= 16 and all(map(_BEDROCK_METADATA.fullmatch, [*told.keys(), *told.values()]))
    return None if fine else "requestMetadata failed to satisfy constraint"


def sse(name: str | None, data: dict[str, Any] | bytes) -> bytes:
    """A server-sent event."""
    told = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + told + b"\n\n"
