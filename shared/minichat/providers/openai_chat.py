"""Chat Completions: OpenAI's older API, and what most self-hosted servers speak (vLLM, Ollama, LiteLLM).

An answer's end comes in up to three parts that servers combine as they like: a reason, the usage, and `[DONE]`.
"""

from collections.abc import Iterator
from typing import Any

from minichat.domain.citations import Cited
from minichat.domain.usage import Usage
from minichat.provider_entries import Provider
from minichat.providers.chunks import Completed, Failed, FailureCode, Incomplete, ProviderChunk, TextDelta, ToolActivity
from minichat.providers.cited import MAX_CITED, cited, listed, span_of
from minichat.providers.fields import UNREADABLE, at, document, identifier, usage_of, whole_characters
from minichat.providers.prompt import Prompt, parameters
from minichat.providers.sse import EventParser
from minichat.providers.transport import Exchange

OUTPUT_CAPS = ("max_completion_tokens", "max_tokens")

_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
_TOOL_REASONS = frozenset({"tool_calls", "function_call"})
_RATE_LIMITS = frozenset({"rate_limit_exceeded", "rate_limit_error", "429", 429})


def exchange(entry: Provider, prompt: Prompt) -> Exchange:
    """The call for a prompt."""
    return Exchange(prompt.model, body(prompt, entry.max_tokens_field or OUTPUT_CAPS[0]), Answer())


def body(prompt: Prompt, output_cap: str) -> dict[str, Any]:
    """The request of a prompt; `output_cap` is what the server calls the output limit.

    `extra_body` may set or replace anything but what this backend answers for: model, conversation, output cap, and
    that one answer is streamed and counted.
    """
    made, extra = parameters(prompt)
    if prompt.web_search_context_size is not None:
        made["web_search_options"] = {"search_context_size": prompt.web_search_context_size}
    if prompt.user is not None:
        made["user"] = prompt.user
    if prompt.metadata:
        made["metadata"] = prompt.metadata
    made.update((name, value) for name, value in extra.items() if name not in {*OUTPUT_CAPS, "n"})
    instructions = [{"role": "system", "content": prompt.instructions}] if prompt.instructions else []
    return {
        **made,
        "model": prompt.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [*instructions, *({"role": message.role, "content": message.text} for message in prompt.messages)],
        output_cap: prompt.max_output_tokens,
    }


class Answer:
    """Reads one answer."""

    def __init__(self) -> None:
        self.usage = Usage()
        self._events = EventParser()
        self._reason: str | None = None
        self._response_id: str | None = None
        self._searched = False
        self._cited: list[Cited] = []

    def feed(self, part: bytes) -> Iterator[ProviderChunk]:
        """The chunks that these bytes complete."""
        for event in self._events.feed(part):
            if event.data == "[DONE]":
                yield self.ended()
            elif event.name in {"", "message", "error"}:
                try:
                    yield from self._said(document(event.data))
                except UNREADABLE:
                    yield Failed("provider_error", "unreadable event", self.usage)

    def ended(self) -> Completed | Incomplete | Failed:
        """An answer that gave the reason of its end is whole, also without the usage or `[DONE]` that should follow."""
        if self._reason is None:
            return Failed("provider_error", "the stream ended without a terminal event", self.usage)
        if self._reason in _TOOL_REASONS:
            return Failed("provider_error", "the model asked for a tool that it was not offered", self.usage)
        if self._reason in _CUT:
            return Incomplete(_CUT[self._reason], self.usage, self._response_id, tuple(self._cited))
        return Completed(self.usage, self._response_id, tuple(self._cited))

    def _said(self, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        if data.get("error"):
            yield _failed(data["error"], self.usage)
            return
        self._response_id = self._response_id or identifier(data.get("id"))
        if data.get("usage") is not None:
            self.usage = _usage(data["usage"])
        for choice in data.get("choices") or []:
            delta = choice.get("delta") or {}
            # Some servers send the message that is whole, at the end.
            for found in (delta.get("annotations"), at(choice, "message", "annotations")):
                if found:
                    yield from self._annotated(listed(found))
            if delta.get("content"):
                yield TextDelta(whole_characters(delta["content"]))
            if choice.get("finish_reason") is not None:
                self._reason = str(choice["finish_reason"])

    def _annotated(self, annotations: list[Any]) -> Iterator[ToolActivity]:
        # The only trace of a search in this API; several cannot be told apart.
        if not self._searched:
            self._searched = True
            yield ToolActivity("web_search", "start")
            yield ToolActivity("web_search", "done")
        for annotation in annotations[:MAX_CITED]:
            found = at(annotation, "url_citation")
            span = span_of(at(found, "start_index"), at(found, "end_index"))
            page = cited("web", at(found, "url"), title=at(found, "title"), text=at(found, "content"), span=span)
            self._cited += page[: MAX_CITED - len(self._cited)]


def _failed(problem: Any, usage: Usage) -> Failed:
    if not isinstance(problem, dict):
        problem = {"message": problem}
    words = [word for word in (problem.get("code"), problem.get("type")) if isinstance(word, str | int)]
    code: FailureCode = "rate_limited" if _RATE_LIMITS.intersection(words) else "provider_error"
    return Failed(code, f"{(words or [''])[0]}: {problem.get('message') or ''}", usage)


def _usage(found: Any) -> Usage:
    return usage_of(
        found,
        input_tokens=("prompt_tokens",),
        output_tokens=("completion_tokens",),
        cache_read_input_tokens=("prompt_tokens_details", "cached_tokens"),
        cache_write_input_tokens=("prompt_tokens_details", "cache_write_tokens"),
        reasoning_tokens=("completion_tokens_details", "reasoning_tokens"),
    )
