"""Anthropic's Messages API: the request, and its events as the product's chunks."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from minichat.domain.answer_end import LENGTH, PAUSED, REFUSED
from minichat.domain.usage import Usage
from minichat.provider_entries import Provider
from minichat.providers import refusals, tool_details
from minichat.providers.chunks import ProviderChunk, TextDelta, ToolActivity, ToolName
from minichat.providers.citations import Block, cited, listed
from minichat.providers.finish_reasons import NOT_OFFERED, Ends
from minichat.providers.json_fields import Characters, at, identifier, usage_of, whole_characters, with_cache_in_input
from minichat.providers.prompt import Prompt, alternating, one_of_temperature_and_top_p, parameters
from minichat.providers.reading import Events, Reading
from minichat.providers.transport import Exchange

API_VERSION = "2023-06-01"
MAX_ASKED = 8_192
"""Characters of a tool's input that are kept."""

KNOWN_EVENTS = frozenset(
    {
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop", "error"),
    }
)
TOOLS: dict[str, ToolName] = {
    "web_search": "web_search",
    "code_execution": "code_interpreter",
    "bash_code_execution": "code_interpreter",
    "text_editor_code_execution": "code_interpreter",
}
ENDS = Ends(
    good=frozenset({"end_turn", "stop_sequence"}),
    cut={
        "max_tokens": LENGTH,
        "model_context_window_exceeded": LENGTH,
        "refusal": REFUSED,
        "pause_turn": PAUSED,
    },
    failed={"tool_use": NOT_OFFERED},
)

_COUNTED = (
    *("input_tokens", "output_tokens", "output_tokens_details"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation"),
)


def exchange(_: Provider, prompt: Prompt) -> Exchange:
    """The call for a prompt."""
    return Exchange(prompt.model, body(prompt), reader(), headers={"anthropic-version": API_VERSION})


def reader() -> Reading:
    """Reads one answer."""
    return Reading(Events(KNOWN_EVENTS), AnthropicAnswer())


def body(prompt: Prompt) -> dict[str, Any]:
    """The request of a prompt. Penalties and `metadata` have no counterpart here and are left out.

    `extra_body` may set or replace anything except what this backend is responsible for: model, conversation, output
    cap, and streaming.
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
            {"role": stretch.role, "content": [{"type": "text", "text": text} for text in stretch.texts]}
            for stretch in alternating(prompt.messages)
        ],
        "max_tokens": prompt.max_output_tokens,
    }


class AnthropicAnswer:
    """What the events of one answer mean (`reading.Meaning`).

    Anthropic counts cached tokens separately; here they are input, as everywhere.
    """

    def __init__(self) -> None:
        self._so_far = Usage()
        self._counted: dict[str, Any] = {}
        self._characters = Characters()
        self._block = Block()
        self._asked: dict[str, str] = {}
        """The tools' inputs, as JSON, by the ids of their calls; the last one arrives in pieces."""
        self._reason: str | None = None
        self._response_id: str | None = None
        self._told = False
        self._explained: Any = None

    def said(self, kind: str, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        """What an event says."""
        match kind:
            case "message_start":
                yield from self._begun(data["message"])
            case "content_block_start":
                yield from self._opened(data["content_block"])
            case "content_block_delta":
                yield from self._delta(data["delta"])
            case "message_delta":
                self._stops(data["delta"], data.get("usage"))
            case "message_stop":
                yield from self.ended()
            case "error":
                yield refusals.failed(data.get("error") or data, self.usage)

    def whole(self, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        """What an answer says that is not streamed."""
        if data.get("error"):
            yield refusals.failed(data["error"], self.usage)
            return
        yield from self._begun(data)
        self._stops(data, None)
        yield from self.ended()

    def ended(self) -> Iterator[ProviderChunk]:
        """An answer with a stop reason is whole. A refusal without text may have an explanation beside it."""
        yield from self._tell(self._characters.rest())
        if not self._told and self._reason == "refusal" and isinstance(self._explained, str):
            yield from self._tell(whole_characters(self._explained))
        yield ENDS.terminal(self._reason, self.usage, self._response_id, self._block.all())

    @property
    def usage(self) -> Usage:
        """What the answer used, once it has ended: the counts at its beginning do not include the text."""
        return self._so_far if self._reason is not None else Usage()

    def _begun(self, message: dict[str, Any]) -> Iterator[ProviderChunk]:
        """A stream's message has no content yet."""
        self._response_id = identifier(message.get("id"))
        self._count(message.get("usage"))
        for block in listed(message.get("content")):
            yield from self._opened(block)

    def _opened(self, block: dict[str, Any]) -> Iterator[ProviderChunk]:
        """A block may begin with text; if nothing is streamed, it has the whole text."""
        self._block.end()
        if (activity := _tool(block)) is not None:
            if activity.phase == "start":
                asked = block.get("input")
                self._asked[str(block.get("id"))] = json.dumps(asked) if asked else ""
            else:
                told = tool_details.of_result(block, self._asked.get(str(block.get("tool_use_id")), ""))
                activity = replace(activity, details=told)
            yield activity
        if block.get("type") == "text":
            yield from self._tell(self._characters.of(block.get("text") or ""))
            for citation in listed(block.get("citations")):
                self._cites(citation)

    def _delta(self, delta: dict[str, Any]) -> Iterator[TextDelta]:
        """The text of a delta; thinking, its signature, citations and a tool's input are deltas, too."""
        match delta.get("type"):
            case "text_delta":
                yield from self._tell(self._characters.of(delta["text"]))
            case "citations_delta":
                self._cites(delta.get("citation"))
            case "input_json_delta" if self._asked:
                call, asked = next(reversed(self._asked.items()))
                self._asked[call] = f"{asked}{delta.get('partial_json') or ''}"[:MAX_ASKED]

    def _tell(self, text: str) -> Iterator[TextDelta]:
        if text:
            self._told = True
            self._block.text(text)
            yield TextDelta(text)

    def _cites(self, found: Any) -> None:
        if at(found, "type") == "web_search_result_location":
            page, title, text = at(found, "url"), at(found, "title"), at(found, "cited_text")
            self._block.cites(cited("web", page, title=title, text=text))

    def _stops(self, delta: dict[str, Any], usage: Any) -> None:
        if delta.get("stop_reason"):
            self._reason = str(delta["stop_reason"])
            self._explained = at(delta, "stop_details", "explanation")
        self._count(usage)

    def _count(self, told: Any) -> None:
        """Numbers are cumulative: one that is null, or smaller than before, is ignored."""
        for name in _COUNTED:
            value = at(told, name)
            if value is not None and not _is_less(value, self._counted.get(name)):
                self._counted[name] = value
        apart = usage_of(
            self._counted | _cache_writes(self._counted),
            input_tokens=("input_tokens",),
            output_tokens=("output_tokens",),
            cache_read_input_tokens=("cache_read_input_tokens",),
            cache_write_input_tokens=("cache_creation_input_tokens",),
            reasoning_tokens=("output_tokens_details", "thinking_tokens"),
        )
        self._so_far = with_cache_in_input(apart)


def _is_less(value: Any, before: Any) -> bool:
    return type(value) is int and type(before) is int and value < before


def _cache_writes(counted: dict[str, Any]) -> dict[str, Any]:
    """The tokens written to the cache, if counted only by their time to live."""
    if "cache_creation_input_tokens" in counted:
        return {}
    told = (at(counted, "cache_creation", f"ephemeral_{time}_input_tokens") for time in ("5m", "1h"))
    return {"cache_creation_input_tokens": sum(tokens for tokens in told if type(tokens) is int)}


def _tool(block: dict[str, Any]) -> ToolActivity | None:
    kind = block.get("type", "")
    if kind == "server_tool_use":
        name = TOOLS.get(block.get("name", ""))
        return ToolActivity(name, "start") if name else None
    name = TOOLS.get(kind.removesuffix("_tool_result"))
    return ToolActivity(name, "done") if name and kind.endswith("_tool_result") else None
