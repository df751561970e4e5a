"""Amazon Bedrock's ConverseStream, in AWS's event-stream encoding."""

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from minichat.local.dialects.dialect import ScriptedReply, Tokens

_REASONS = {"max_output_tokens": "max_tokens", "content_filter": "content_filtered"}
_SEARCH = "nova_grounding"
_CODES = {"rate_limit_exceeded": "throttlingException"}


class Converse:
    """Amazon Bedrock's ConverseStream. It does not count reasoning apart."""

    media_type = "application/vnd.amazon.eventstream"

    def __init__(self, said: ScriptedReply) -> None:
        self._said = said
        self._index = 0
        self._tool_id = f"tooluse_{said.number:022x}"
        self._reason = "guardrail_intervened" if said.refuses else "end_turn"

    def opening(self) -> Iterator[bytes]:
        yield _event_frame("messageStart", {"role": "assistant"})

    def tool_begins(self, name: str) -> Iterator[bytes]:
        """The one tool that Bedrock runs by itself is a search of the web."""
        if name == "web_search":
            yield self._block({"toolUse": {"toolUseId": self._tool_id, "name": _SEARCH, "type": "server_tool_use"}})
            yield self._block_delta({"toolUse": {"input": json.dumps({"query": self._said.work.query})}})
            yield self._block_stops()

    def tool_ends(self, name: str) -> Iterator[bytes]:
        if name == "web_search":
            found = {"toolUseId": self._tool_id, "type": f"{_SEARCH}_result", "status": "success"}
            yield self._block({"toolResult": found})
            yield self._block_delta({"toolResult": [{"json": {"found": []}}]})
            yield self._block_stops()

    def text_begins(self) -> Iterator[bytes]:
        yield from ()

    def delta(self, text: str) -> bytes:
        return self._block_delta({"text": text})

    def raw(self, payload: bytes) -> bytes:
        return frame(_event_headers("contentBlockDelta"), payload)

    def unknown(self) -> bytes:
        thought = self._block_delta({"reasoningContent": {"text": "not for you"}})
        return _event_frame("inventedTomorrow", {"text": "not for you"}) + thought

    def completed(self) -> Iterator[bytes]:
        yield from self._ending(self._reason)

    def incomplete(self, reason: str) -> Iterator[bytes]:
        yield from self._ending(_REASONS.get(reason, reason))

    def failed(self, code: str, *, flat: bool) -> Iterator[bytes]:
        message = self._said.message
        if flat:
            headers = {":message-type": "error", ":error-code": code, ":error-message": message}
            yield frame(headers, b"")
            return
        headers = {
            ":message-type": "exception",
            ":exception-type": _CODES.get(code, "internalServerException"),
            ":content-type": "application/json",
        }
        yield frame(headers, json.dumps({"message": message}).encode())

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": [{"text": self._said.text}]}
        return {"output": {"message": message}, "stopReason": self._reason, **self._metadata()}

    @staticmethod
    def problem(status: int, message: str) -> dict[str, Any]:
        names = {401: "UnrecognizedClientException", 403: "AccessDeniedException", 429: "ThrottlingException"}
        kind = names.get(status, "InternalServerException" if status >= 500 else "ValidationException")
        return {"__type": kind, "message": message}

    def _ending(self, reason: str) -> Iterator[bytes]:
        for page in self._said.pages:
            where = {"web": {"url": page.target, "domain": urlsplit(page.target).netloc}}
            told = {"title": page.title, "sourceContent": [{"text": self._said.quoted}], "location": where}
            yield self._block_delta({"citation": told})
        yield self._block_stops()
        yield _event_frame("messageStop", {"stopReason": reason})
        if self._said.tokens is not None:
            yield _event_frame("metadata", self._metadata())

    def _metadata(self) -> dict[str, Any]:
        tokens = self._said.tokens or Tokens(0, 0)
        usage = {
            "inputTokens": tokens.given - tokens.cache_read - tokens.cache_write,
            "outputTokens": tokens.made,
            "totalTokens": tokens.given + tokens.made,
            "cacheReadInputTokens": tokens.cache_read,
            "cacheWriteInputTokens": tokens.cache_write,
        }
        return {"usage": usage, "metrics": {"latencyMs": 1}}

    def _block(self, start: dict[str, Any]) -> bytes:
        return _event_frame("contentBlockStart", {"start": start, "contentBlockIndex": self._index})

    def _block_delta(self, delta: dict[str, Any]) -> bytes:
        return _event_frame("contentBlockDelta", {"delta": delta, "contentBlockIndex": self._index})

    def _block_stops(self) -> bytes:
        self._index += 1
        return _event_frame("contentBlockStop", {"contentBlockIndex": self._index - 1})


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """A message of AWS's event-stream encoding: lengths, headers, payload, and a checksum after each half."""
    told = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    lengths = struct.pack("!II", 16 + len(told) + len(payload), len(told))
    message = lengths + struct.pack("!I", zlib.crc32(lengths)) + told + payload
    return message + struct.pack("!I", zlib.crc32(message))


def _event_headers(name: str) -> dict[str, str]:
    return {":event-type": name, ":content-type": "application/json", ":message-type": "event"}


def _event_frame(name: str, data: dict[str, Any]) -> bytes:
    return frame(_event_headers(name), json.dumps(data, ensure_ascii=False).encode())
