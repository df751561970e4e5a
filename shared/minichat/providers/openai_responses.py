"""OpenAI's Responses API, which Azure OpenAI speaks too: the request, and the events told in the product's words."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from minichat.domain.citations import Cited, Span
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
)
from minichat.providers.cited import MAX_CITED, cited, listed, span_of
from minichat.providers.fields import UNREADABLE, at, identifier, usage_of, whole_characters
from minichat.providers.prompt import Prompt, PromptMessage, parameters
from minichat.providers.sse import EventParser, WireEvent
from minichat.providers.transport import Exchange

_TOOL_EVENTS = {
    "response.file_search_call.searching": ToolActivity("file_search", "start"),
    "response.file_search_call.completed": ToolActivity("file_search", "done"),
    "response.web_search_call.searching": ToolActivity("web_search", "start"),
    "response.web_search_call.completed": ToolActivity("web_search", "done"),
    "response.code_interpreter_call.in_progress": ToolActivity("code_interpreter", "start"),
    "response.code_interpreter_call.completed": ToolActivity("code_interpreter", "done"),
}
_CITING = ("file_citation", "url_citation")
_CUT = ("max_output_tokens", "content_filter")
_KNOWN_EVENTS = _TOOL_EVENTS.keys() | {
    "response.output_text.delta",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
}


def exchange(_: Provider, prompt: Prompt) -> Exchange:
    """The call for a prompt."""
    return Exchange(prompt.model, body(prompt), Answer())


def body(prompt: Prompt) -> dict[str, Any]:
    """The request of a prompt. Nothing is stored at the provider.

    `extra_body` may set or replace anything but what this backend answers for: model, conversation, output cap (the
    reserve is computed from it), and that the answer is streamed and not stored.
    """
    made, extra = parameters(prompt)
    effort = made.pop("reasoning_effort", None)
    if prompt.instructions:
        made["instructions"] = prompt.instructions
    if tools := list(_tools(prompt)):
        made["tools"] = tools
    if prompt.max_tool_calls is not None:
        made["max_tool_calls"] = prompt.max_tool_calls
    if effort is not None:
        made["reasoning"] = {"effort": effort}
    if prompt.user is not None:
        made["user"] = prompt.user
    if prompt.metadata:
        made["metadata"] = prompt.metadata
    return {
        **made,
        **extra,
        "model": prompt.model,
        "stream": True,
        "store": False,
        "input": [_item(message) for message in prompt.messages],
        "max_output_tokens": prompt.max_output_tokens,
    }


class Answer:
    """Reads one answer; usage comes with its last event only."""

    usage = Usage()

    def __init__(self) -> None:
        self._events = EventParser()
        self._texts: list[str] = []

    def feed(self, part: bytes) -> Iterator[ProviderChunk]:
        """The chunks that these bytes complete."""
        for event in self._events.feed(part):
            chunk = chunk_of(event, self._texts)
            if isinstance(chunk, TextDelta):
                self._texts.append(chunk.text)
            if chunk is not None:
                yield chunk

    def ended(self) -> Failed:
        """The stream ended before the answer did."""
        return Failed("provider_error", "the stream ended without a terminal event")


def chunk_of(event: WireEvent, told: Sequence[str] = ()) -> ProviderChunk | None:
    """What an event says, or None when it says nothing to us; `told` is the text of the answer before it.

    One of ours that cannot be read is a failure: it may have been text, or the end.
    """
    if event.name and event.name not in _KNOWN_EVENTS:
        return None
    try:
        data = json.loads(event.data)
        name = event.name or data.get("type", "")
        if name == "response.output_text.delta":
            return TextDelta(whole_characters(data["delta"]))
        return _TOOL_EVENTS.get(name) or _terminal(name, data, told)
    except UNREADABLE:
        return Failed("provider_error", f"unreadable event {event.name}")


def _terminal(name: str, data: dict[str, Any], told: Sequence[str]) -> Completed | Incomplete | Failed | None:
    match name:
        case "response.completed" | "response.incomplete":
            response = data["response"]
            end = _usage(response), identifier(response.get("id")), _citations(response, told)
            if name == "response.completed":
                return Completed(*end)
            reason = at(response, "incomplete_details", "reason")
            return Incomplete(reason if reason in _CUT else "unknown", *end)
        case "response.failed" | "error":
            return _failed(data)
    return None


def _tools(prompt: Prompt) -> Iterator[dict[str, Any]]:
    if prompt.vector_stores:
        search: dict[str, Any] = {"type": "file_search", "vector_store_ids": list(prompt.vector_stores)}
        yield search if prompt.max_num_results is None else search | {"max_num_results": prompt.max_num_results}
    if prompt.web_search_context_size is not None:
        yield {"type": "web_search", "search_context_size": prompt.web_search_context_size}
    if prompt.code_files:
        yield {"type": "code_interpreter", "container": {"type": "auto", "file_ids": list(prompt.code_files)}}


def _item(message: PromptMessage) -> dict[str, Any]:
    kind = "input_text" if message.role == "user" else "output_text"
    images = [{"type": "input_image", "file_id": image, "detail": "auto"} for image in message.images]
    return {"type": "message", "role": message.role, "content": [{"type": kind, "text": message.text}, *images]}


def _citations(response: dict[str, Any], told: Sequence[str]) -> tuple[Cited, ...]:
    """What the parts of an answer's text cite, with spans of the whole answer.

    An offset counts within its part. What was streamed is the parts in their order; where it is not, no offset means
    anything to those who read the stream.
    """
    annotated = list(itertools.islice(_annotated(response), MAX_CITED))
    if not annotated:
        return ()
    whole = "".join(told)
    found: list[Cited] = []
    for before, text, annotation in annotated:
        span = span_of(at(annotation, "start_index"), at(annotation, "end_index"))
        span = _moved(span, before, text) if whole.startswith(text, before) else None
        quoted = at(annotation, "text")
        if annotation["type"] == "url_citation":
            found += cited("web", at(annotation, "url"), title=at(annotation, "title"), text=quoted, span=span)
        else:
            found += cited("file", at(annotation, "file_id"), text=quoted, span=span)
    return tuple(found)


def _annotated(response: dict[str, Any]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each annotation that cites, with its part's text and the characters of the answer before that."""
    before = 0
    for item in listed(response.get("output")):
        for part in listed(at(item, "content")):
            text = at(part, "text")
            if at(part, "type") != "output_text" or not isinstance(text, str):
                continue
            text = whole_characters(text)
            for annotation in listed(at(part, "annotations")):
                if at(annotation, "type") in _CITING:
                    yield before, text, annotation
            before += len(text)


def _moved(span: Span | None, by: int, text: str) -> Span | None:
    """The span of a text in what it is a part of; None for one that is not within the text."""
    if span is None or not 0 <= span[0] <= span[1] <= len(text):
        return None
    return span[0] + by, span[1] + by


def _failed(data: dict[str, Any]) -> Failed:
    """The failure of `response.failed` and `error` in each of the shapes that providers send; null is empty."""
    response = data.get("response")
    nested = response.get("error") if isinstance(response, dict) else None
    problem = nested or data.get("error") or data
    if not isinstance(problem, dict):
        problem = {"message": problem}
    code, message = problem.get("code") or "", problem.get("message") or ""
    failure: FailureCode = "rate_limited" if code == "rate_limit_exceeded" else "provider_error"
    return Failed(failure, f"{code}: {message}", _usage(response))


def _usage(response: Any) -> Usage:
    return usage_of(
        response,
        input_tokens=("usage", "input_tokens"),
        output_tokens=("usage", "output_tokens"),
        cache_read_input_tokens=("usage", "input_tokens_details", "cached_tokens"),
        cache_write_input_tokens=("usage", "input_tokens_details", "cache_write_tokens"),
        reasoning_tokens=("usage", "output_tokens_details", "reasoning_tokens"),
    )
