"""Anthropic's Messages API: the request, and the events told in the product's words."""

from collections.abc import Iterator
from typing import Any

from minichat.domain.usage import Usage
from minichat.provider_entries import Provider
from minichat.providers.chunks import (
    Completed,
    Failed,
    FailureCode,
    Incomplete,
    ProviderChunk,
    TextDelta,
    ToolActivity,
    ToolName,
)
from minichat.providers.cited import Block, cited
from minichat.providers.fields import (
    UNREADABLE,
    at,
    document,
    identifier,
    usage_of,
    whole_characters,
    with_cache_in_input,
)
from minichat.providers.prompt import Prompt, alternating, one_of_temperature_and_top_p, parameters
from minichat.providers.sse import EventParser, WireEvent
from minichat.providers.transport import Exchange

API_VERSION = "2023-06-01"

_KNOWN_EVENTS = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "error"}
)
_TOOLS: dict[str, ToolName] = {
    "web_search": "web_search",
    "code_execution": "code_interpreter",
    "bash_code_execution": "code_interpreter",
    "text_editor_code_execution": "code_interpreter",
}
_CUT = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
    "pause_turn": "pause_turn",
}
_FAILURES: dict[str, FailureCode] = {"rate_limit_error": "rate_limited", "timeout_error": "provider_timeout"}


def exchange(_: Provider, prompt: Prompt) -> Exchange:
    """The call for a prompt."""
    return Exchange(prompt.model, body(prompt), Answer(), headers={"anthropic-version": API_VERSION})


def body(prompt: Prompt) -> dict[str, Any]:
    """The request of a prompt. Penalties and `metadata` have no counterpart here and are left out.

    `extra_body` may set or replace anything but what this backend answers for: model, conversation, output cap, and
    that the answer is streamed.
    """
    said, extra = parameters(prompt)
    made: dict[str, Any] = one_of_temperature_and_top_p(said)
    if "stop" in said:
        made["stop_sequences"] = list(said["stop"])
    if "reasoning_effort" in said:
        made["output_config"] = {"effort": said["reasoning_effort"]}
    if prompt.instructions:
        made["system"] = prompt.instructions
    if prompt.web_search_context_size is not None and prompt.max_tool_calls != 0:
        limit = {} if prompt.max_tool_calls is None else {"max_uses": prompt.max_tool_calls}
        made["tools"] = [{"type": "web_search_20250305", "name": "web_search", **limit}]
    if prompt.user is not None:
        made["metadata"] = {"user_id": prompt.user}
    return {
        **made,
        **extra,
        "model": prompt.model,
        "stream": True,
        "messages": [
            {"role": role, "content": [{"type": "text", "text": text} for text in texts]}
            for role, texts in alternating(prompt.messages)
        ],
        "max_tokens": prompt.max_output_tokens,
    }


class Answer:
    """Reads one answer. Tokens from the cache, which Anthropic counts apart, are input here as everywhere."""

    def __init__(self) -> None:
        self.usage = Usage()
        self._events = EventParser()
        self._counted: dict[str, Any] = {}
        self._block = Block()
        self._reason: str | None = None
        self._response_id: str | None = None

    def feed(self, part: bytes) -> Iterator[ProviderChunk]:
        """The chunks that these bytes complete."""
        for event in self._events.feed(part):
            if event.name and event.name not in _KNOWN_EVENTS:
                continue
            try:
                chunk = self._said(event)
            except UNREADABLE:
                chunk = Failed("provider_error", f"unreadable event {event.name}", self.usage)
            if chunk is not None:
                yield chunk

    def ended(self) -> Completed | Incomplete | Failed:
        """An answer that gave the reason of its end is whole."""
        if self._reason is None:
            return Failed("provider_error", "the stream ended without a terminal event", self.usage)
        if self._reason == "tool_use":
            return Failed("provider_error", "the model asked for a tool that it was not offered", self.usage)
        if self._reason in _CUT:
            return Incomplete(_CUT[self._reason], self.usage, self._response_id, self._block.all())
        return Completed(self.usage, self._response_id, self._block.all())

    def _said(self, event: WireEvent) -> ProviderChunk | None:
        data = document(event.data)
        match event.name or data.get("type"):
            case "message_start":
                self._response_id = identifier(data["message"].get("id"))
                self._count(data["message"].get("usage"))
            case "content_block_start":
                self._block.end()
                return _tool(data["content_block"])
            case "content_block_delta":
                return self._delta(data["delta"])
            case "message_delta":
                reason = data["delta"].get("stop_reason")
                self._reason = self._reason if reason is None else str(reason)
                self._count(data.get("usage"))
            case "message_stop":
                return self.ended()
            case "error":
                return _failed(data.get("error"), self.usage)
        return None

    def _delta(self, delta: dict[str, Any]) -> TextDelta | None:
        """The text in a delta; thinking, its signature, citations and a tool's input come as deltas, too."""
        match delta.get("type"):
            case "text_delta":
                text = whole_characters(delta["text"])
                self._block.text(text)
                return TextDelta(text)
            case "citations_delta":
                found = delta.get("citation")
                if at(found, "type") == "web_search_result_location":
                    page, title, text = at(found, "url"), at(found, "title"), at(found, "cited_text")
                    self._block.cites(cited("web", page, title=title, text=text))
        return None

    def _count(self, told: Any) -> None:
        """Later numbers are cumulative; one that is null says nothing new."""
        if isinstance(told, dict):
            self._counted |= {name: value for name, value in told.items() if value is not None}
        apart = usage_of(
            self._counted,
            input_tokens=("input_tokens",),
            output_tokens=("output_tokens",),
            cache_read_input_tokens=("cache_read_input_tokens",),
            cache_write_input_tokens=("cache_creation_input_tokens",),
            reasoning_tokens=("output_tokens_details", "thinking_tokens"),
        )
        self.usage = with_cache_in_input(apart)


def _tool(block: dict[str, Any]) -> ToolActivity | None:
    kind = block.get("type", "")
    if kind == "server_tool_use":
        name = _TOOLS.get(block.get("name", ""))
        return ToolActivity(name, "start") if name else None
    name = _TOOLS.get(kind.removesuffix("_tool_result"))
    return ToolActivity(name, "done") if name and kind.endswith("_tool_result") else None


def _failed(problem: Any, usage: Usage) -> Failed:
    kind = str(at(problem, "type") or "")
    message = at(problem, "message") or ""
    return Failed(_FAILURES.get(kind, "provider_error"), f"{kind}: {message}", usage)
