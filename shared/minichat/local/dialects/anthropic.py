"""Anthropic's Messages API."""

import json
from collections.abc import Iterator
from typing import Any

from minichat.local.dialects.dialect import Cite, ScriptedReply, Tokens, sse

_REASONS = {"max_output_tokens": "max_tokens", "pause": "pause_turn"}
_CODES = {"rate_limit_exceeded": "rate_limit_error", "server_error": "api_error"}
_TOOLS = {"web_search": "web_search", "code_interpreter": "code_execution"}
_CALLER = {"type": "direct"}


class Messages:
    """Anthropic's Messages API."""

    media_type = "text/event-stream"

    def __init__(self, said: ScriptedReply) -> None:
        self._said = said
        self._index = 0
        self._tool_id = f"srvtoolu_{said.number:024x}"
        self._reason = "refusal" if said.refuses else "end_turn"

    def opening(self) -> Iterator[bytes]:
        message = self._message([], None)
        message["usage"]["output_tokens"] = min(message["usage"]["output_tokens"], 1)
        yield self._event("message_start", message=message)
        yield self._event("ping")

    def tool_begins(self, name: str) -> Iterator[bytes]:
        """Anthropic has no search of files."""
        if name in _TOOLS:
            yield self._block(
                {"type": "server_tool_use", "id": self._tool_id, "name": _TOOLS[name], "input": {}, "caller": _CALLER}
            )
            asked = {"query": self._said.work.query} if name == "web_search" else {"code": "print(1 + 1)"}
            yield self._block_delta({"type": "input_json_delta", "partial_json": json.dumps(asked)})
            yield self._block_stops()

    def tool_ends(self, name: str) -> Iterator[bytes]:
        if name not in _TOOLS:
            return
        content: Any = []
        if name == "code_interpreter":
            kind = {"type": "code_execution_result"}
            content = kind | {"stdout": self._said.work.output, "stderr": "", "return_code": 0, "content": []}
        told: dict[str, Any] = {"type": f"{_TOOLS[name]}_tool_result", "tool_use_id": self._tool_id, "content": content}
        yield self._block(told if name == "code_interpreter" else told | {"caller": _CALLER})
        yield self._block_stops()

    def text_begins(self) -> Iterator[bytes]:
        yield self._block({"type": "text", "text": ""})

    def delta(self, text: str) -> bytes:
        return self._block_delta({"type": "text_delta", "text": text})

    def raw(self, payload: bytes) -> bytes:
        return sse("content_block_delta", payload)

    def unknown(self) -> bytes:
        thought = self._block_delta({"type": "invented_delta", "text": "not for you"})
        return self._event("invented_tomorrow", text="not for you") + thought

    def completed(self) -> Iterator[bytes]:
        yield from self._ending(self._reason)

    def incomplete(self, reason: str) -> Iterator[bytes]:
        yield from self._ending(_REASONS.get(reason, reason))

    def failed(self, code: str, *, flat: bool) -> Iterator[bytes]:
        del flat
        problem = {"type": _CODES.get(code, code), "message": self._said.message, "details": None}
        yield self._event("error", error=problem, request_id="req_0123456789")

    def whole(self) -> dict[str, Any]:
        citations = [self._citation(page) for page in self._said.pages] or None
        return self._message([{"type": "text", "text": self._said.text, "citations": citations}], self._reason)

    @staticmethod
    def problem(status: int, message: str) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_0123456789"}

    def _ending(self, reason: str) -> Iterator[bytes]:
        for page in self._said.pages:
            yield self._block_delta({"type": "citations_delta", "citation": self._citation(page)})
        yield self._block_stops()
        usage = self._usage()
        yield self._event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage)
        yield self._event("message_stop")

    def _citation(self, page: Cite) -> dict[str, Any]:
        kind = {"type": "web_search_result_location", "encrypted_index": "RXhhbXBsZQ=="}
        return kind | {"url": page.target, "title": page.title, "cited_text": self._said.quoted}

    def _block(self, block: dict[str, Any]) -> bytes:
        return self._event("content_block_start", index=self._index, content_block=block)

    def _block_delta(self, delta: dict[str, Any]) -> bytes:
        return self._event("content_block_delta", index=self._index, delta=delta)

    def _block_stops(self) -> bytes:
        self._index += 1
        return self._event("content_block_stop", index=self._index - 1)

    def _event(self, name: str, **data: Any) -> bytes:
        return sse(name, {"type": name, **data})

    def _message(self, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        return {
            "id": f"msg_{self._said.number:024x}",
            "type": "message",
            "role": "assistant",
            "model": self._said.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": self._usage(),
        }

    def _usage(self) -> dict[str, Any]:
        tokens = self._said.tokens or Tokens(0, 0)
        return {
            "input_tokens": tokens.given - tokens.cache_read - tokens.cache_write,
            "cache_creation_input_tokens": tokens.cache_write,
            "cache_read_input_tokens": tokens.cache_read,
            "output_tokens": tokens.made,
            "output_tokens_details": {"thinking_tokens": tokens.reasoning},
        }
