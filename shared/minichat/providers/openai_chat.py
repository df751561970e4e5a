"""Chat Completions: OpenAI's older API, which most self-hosted servers speak (vLLM, Ollama, LiteLLM).

An answer's end has up to three parts, which servers combine as they like: a reason, the usage, and `[DONE]`.
"""

from collections.abc import Iterator
from typing import Any

from minichat.domain.answer_end import FILTERED, LENGTH, PAUSED, REFUSED
from minichat.domain.citations import Cited
from minichat.domain.usage import Usage
from minichat.provider_entries import Provider
from minichat.providers import refusals
from minichat.providers.chunks import ProviderChunk, TextDelta, ToolActivity
from minichat.providers.citations import MAX_CITED, cited, listed, span_of
from minichat.providers.finish_reasons import NOT_OFFERED, Ends
from minichat.providers.json_fields import Characters, at, identifier, usage_of
from minichat.providers.prompt import Prompt, alternating, parameters
from minichat.providers.reading import DONE, Events, Reading
from minichat.providers.transport import Exchange

OUTPUT_CAPS = ("max_completion_tokens", "max_tokens")
BETWEEN_TEXTS = "\n\n"
"""Joins the texts of neighbouring messages of one role: older servers refuse a list of parts."""

KNOWN_EVENTS = frozenset({"error"})
"""Events have neither names nor types here, except for failures, which some gateways name."""
ENDS = Ends(
    good=frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"}),
    cut={
        **dict.fromkeys(("length", "max_tokens", "model_length", "model_context_window_exceeded"), LENGTH),
        **dict.fromkeys(("content_filter", "safety", "sensitive"), FILTERED),
        "refusal": REFUSED,
        "pause_turn": PAUSED,
    },
    failed={
        **dict.fromkeys(("tool_calls", "function_call", "tool_use"), NOT_OFFERED),
        **dict.fromkeys(("error", "network_error", "insufficient_system_resource"), "the server could not go on"),
        **dict.fromkeys(("abort", "aborted", "cancelled", "canceled"), "the server gave up the answer"),
    },
)
"""OpenAI's words and those of its followers: vLLM, SGLang, TGI, Together, Mistral, DeepSeek, GLM, OpenRouter."""


_PARTS = {"text": "text", "output_text": "text", "refusal": "refusal"}


def exchange(entry: Provider, prompt: Prompt) -> Exchange:
    """The call for a prompt."""
    return Exchange(prompt.model, body(prompt, entry.max_tokens_field or OUTPUT_CAPS[0]), reader())


def reader() -> Reading:
    """Reads one answer."""
    return Reading(Events(KNOWN_EVENTS), ChatCompletionAnswer())


def body(prompt: Prompt, output_cap: str) -> dict[str, Any]:
    """The request of a prompt; `output_cap` is the server's name for the output limit. `metadata` is left out: OpenAI
    refuses it if nothing is stored.

    `extra_body` may set or replace anything except what this backend is responsible for: model, conversation, output
    cap, and that one answer is streamed and counted.
    """
    made, extra = parameters(prompt)
    if prompt.web_search_context_size is not None:
        made["web_search_options"] = {"search_context_size": prompt.web_search_context_size}
    if prompt.user is not None:
        made["user"] = prompt.user
    made.update((name, value) for name, value in extra.items() if name not in {*OUTPUT_CAPS, "n"})
    instructions = [{"role": "system", "content": prompt.instructions}] if prompt.instructions else []
    said = [
        {"role": stretch.role, "content": BETWEEN_TEXTS.join(stretch.texts)} for stretch in alternating(prompt.messages)
    ]
    return {
        **made,
        "model": prompt.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [*instructions, *said],
        output_cap: prompt.max_output_tokens,
    }


class ChatCompletionAnswer:
    """What the events of one answer mean (`reading.Meaning`)."""

    def __init__(self) -> None:
        self._counted = Usage()
        self._is_counted = True
        self._characters = Characters()
        self._told = False
        self._reason: str | None = None
        self._response_id: str | None = None
        self._searched = False
        self._refused = False
        self._calls = False
        self._cited: list[Cited] = []

    @property
    def usage(self) -> Usage:
        """What the answer used: the last count, unless more text followed it, and no end."""
        return self._counted if self._is_counted or self._reason is not None else Usage()

    def said(self, kind: str, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        """What an event says."""
        if kind == DONE:
            yield from self.ended()
        elif kind == "error" or data.get("object") == "error":
            yield refusals.failed(data.get("error") or data, self.usage)
        else:
            yield from self._chunk(data)

    def whole(self, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        """What an answer says that is not streamed."""
        if data.get("error"):
            yield refusals.failed(data["error"], self.usage)
            return
        yield from self._chunk(data)
        yield from self.ended()

    def ended(self) -> Iterator[ProviderChunk]:
        """An answer with a finish reason is whole, even without the usage or `[DONE]` that should follow.

        Some servers end a function call as they end a text: a call without any text is no answer.
        """
        yield from self._tell(self._characters.rest())
        is_call = self._calls and not self._told and (self._reason or "").casefold() in ENDS.good
        reason = "tool_calls" if is_call else self._reason
        yield ENDS.terminal(reason, self.usage, self._response_id, tuple(self._cited), refused=self._refused)

    def _chunk(self, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        self._response_id = self._response_id or identifier(data.get("id"))
        for choice in data.get("choices") or []:
            delta, message = choice.get("delta") or {}, choice.get("message") or {}
            # Some servers send the whole message at the end, and some send nothing else.
            for found in (delta.get("annotations"), message.get("annotations")):
                if found:
                    yield from self._annotated(listed(found))
            told = message if message and not delta and not self._told else delta
            self._calls = self._calls or bool(told.get("tool_calls") or told.get("function_call"))
            self._refused = self._refused or _refuses(told)
            for text in (_text(told.get("content")), told.get("refusal") or ""):
                yield from self._tell(self._characters.of(text))
            if choice.get("finish_reason"):
                self._reason = str(choice["finish_reason"])
        if data.get("usage") and (counted := _usage(data["usage"])).known:
            self._counted, self._is_counted = counted, True

    def _tell(self, text: str) -> Iterator[TextDelta]:
        if text:
            self._told = True
            self._is_counted = False
            yield TextDelta(text)

    def _annotated(self, annotations: list[Any]) -> Iterator[ToolActivity]:
        # The only trace of a search in this API; several searches look like one.
        if not self._searched:
            self._searched = True
            yield ToolActivity("web_search", "start")
            yield ToolActivity("web_search", "done")
        for annotation in annotations[:MAX_CITED]:
            found = at(annotation, "url_citation")
            span = span_of(at(found, "start_index"), at(found, "end_index"))
            page = cited("web", at(found, "url"), title=at(found, "title"), text=at(found, "content"), span=span)
            self._cited += page[: MAX_CITED - len(self._cited)]


def _text(content: Any) -> str:
    """The text of a content: a string, or parts; a thinking model's thoughts are parts of another type."""
    if not isinstance(content, list):
        return content or ""
    return "".join(part if isinstance(part, str) else _of_part(part) for part in content)


def _refuses(told: dict[str, Any]) -> bool:
    """Whether this is a refusal: what the model says instead of an answer."""
    parts = listed(told.get("content"))
    return bool(told.get("refusal")) or any(at(part, "type") == "refusal" and at(part, "refusal") for part in parts)


def _of_part(part: dict[str, Any]) -> Any:
    return part.get(_PARTS.get(str(part.get("type")), "")) or ""


def _usage(found: Any) -> Usage:
    return usage_of(
        found,
        input_tokens=("prompt_tokens",),
        output_tokens=("completion_tokens",),
        cache_read_input_tokens=("prompt_tokens_details", "cached_tokens"),
        cache_write_input_tokens=("prompt_tokens_details", "cache_write_tokens"),
        reasoning_tokens=("completion_tokens_details", "reasoning_tokens"),
    )
