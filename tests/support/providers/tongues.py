"""What each API says on the wire, event by event: what no good provider sends can be said, too."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minichat.domain.usage import Usage
from minichat.local.dialects.bedrock import frame
from minichat.provider_entries import ProviderKind
from minichat.providers import anthropic_messages, bedrock_converse, openai_chat, openai_responses
from minichat.providers.chunks import ProviderChunk, Terminal, TextDelta
from minichat.providers.transport import Reader

CASES = Path(__file__).parents[2] / "cases"
USED = Usage(11, 7)
"""What every answer of these reports."""


@dataclass(frozen=True, slots=True)
class Tongue:
    """One API: who reads it, and how it says a piece of text, a good end, a failure, and nothing."""

    kind: ProviderKind
    said: dict[str, Any]
    reader: Callable[[], Reader]
    text: Callable[[str], bytes]
    end: bytes
    failure: bytes
    nothing: tuple[bytes, ...]

    def whole(self, text: str) -> dict[str, Any]:
        """The answer of a server that does not stream."""
        return _WHOLE[self.kind](text)


def read(reader: Reader, *parts: bytes) -> list[ProviderChunk]:
    """The chunks of these bytes and, unless one was the last, of their end."""
    chunks = [chunk for part in parts for chunk in reader.feed(part)]
    return chunks if chunks and isinstance(chunks[-1], Terminal) else [*chunks, *reader.ended()]


def text_of(chunks: list[ProviderChunk]) -> str:
    """The text of all deltas."""
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


def case(name: str) -> list[ProviderChunk]:
    """What an answer of `tests/cases` says; the second part of its name is the API."""
    return read(_READERS[name.split(".")[1]](), (CASES / name).read_bytes())


def event(data: dict[str, Any] | str, name: str = "") -> bytes:
    """A server-sent event; JSON escapes what is not ASCII, as most providers do."""
    told = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {told}\n\n".encode()


def converse(name: str, **data: Any) -> bytes:
    """An event of Bedrock's."""
    return frame({":event-type": name, ":message-type": "event"}, json.dumps(data).encode())


def _choice(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


_READERS = {
    "responses": openai_responses.reader,
    "chat": openai_chat.reader,
    "messages": anthropic_messages.reader,
}
_RESPONSE = {"id": "r", "status": "completed", "output": [], "usage": {"input_tokens": 11, "output_tokens": 7}}
_NOTHING = (
    *(b"data:\n\n", b"data: \n\n", b"data\n\n", b"data: \t\n\n", b"data:\ndata:\n\n", b": nothing\n\n"),
    *(b"event: ping\ndata:\n\n", b"event: error\ndata:\n\n", b"event: message\ndata: \n\n", b"id: 1\nretry: 5\n\n"),
)
_CONVERSED = {":event-type": "contentBlockDelta", ":message-type": "event"}

TONGUES = (
    Tongue(
        "openai_responses",
        {},
        openai_responses.reader,
        lambda text: event({"type": "response.output_text.delta", "delta": text}, "response.output_text.delta"),
        event({"type": "response.completed", "response": _RESPONSE}, "response.completed"),
        event({"type": "error", "code": "server_error", "message": "Broken."}, "error"),
        _NOTHING,
    ),
    Tongue(
        "openai_chat",
        {},
        openai_chat.reader,
        lambda text: _choice({"content": text}),
        _choice({}, "stop")
        + event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
        + event("[DONE]"),
        event({"error": {"code": "server_error", "message": "Broken."}}),
        _NOTHING,
    ),
    Tongue(
        "anthropic_messages",
        {},
        anthropic_messages.reader,
        lambda text: event(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
            "content_block_delta",
        ),
        event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"input_tokens": 11, "output_tokens": 7},
            },
            "message_delta",
        )
        + event({"type": "message_stop"}, "message_stop"),
        event({"type": "error", "error": {"type": "api_error", "message": "Broken."}}, "error"),
        _NOTHING,
    ),
    Tongue(
        "bedrock_converse",
        {"region": "us-east-1"},
        bedrock_converse.reader,
        lambda text: converse("contentBlockDelta", delta={"text": text}, contentBlockIndex=0),
        converse("messageStop", stopReason="end_turn")
        + converse("metadata", usage={"inputTokens": 11, "outputTokens": 7}),
        frame({":message-type": "exception", ":exception-type": "internalServerException"}, b'{"message": "Broken."}'),
        (
            frame(_CONVERSED, b""),
            frame(_CONVERSED, b" \n"),
            frame({**_CONVERSED, ":event-type": "initial-response"}, b"{}"),
        ),
    ),
)

_WHOLE: dict[str, Callable[[str], dict[str, Any]]] = {
    "openai_responses": lambda text: (
        _RESPONSE
        | {"output": [{"type": "message", "content": [{"type": "output_text", "text": text, "annotations": []}]}]}
    ),
    "openai_chat": lambda text: {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    },
    "anthropic_messages": lambda text: {
        "type": "message",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 11, "output_tokens": 7},
    },
    "bedrock_converse": lambda text: {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 11, "outputTokens": 7},
    },
}
