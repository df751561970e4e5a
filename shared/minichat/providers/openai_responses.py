"""OpenAI's Responses API, which Azure OpenAI speaks too: the request, and its events as the product's chunks."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from minichat.domain.answer_end import CUT, FILTERED, LENGTH, REFUSED
from minichat.domain.citations import Cited, Span
from minichat.domain.usage import Usage
from minichat.provider_entries import Provider
from minichat.providers import refusals, tool_details
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity, ToolName
from minichat.providers.citations import MAX_CITED, cited, listed, span_of
from minichat.providers.finish_reasons import NO_END, NOT_OFFERED
from minichat.providers.json_fields import Characters, at, identifier, usage_of, whole_characters
from minichat.providers.prompt import Prompt, Stretch, alternating, parameters
from minichat.providers.reading import Events, Reading
from minichat.providers.transport import Exchange

TOOL_EVENTS = {
    "response.file_search_call.searching": ToolActivity("file_search", "start"),
    "response.file_search_call.completed": ToolActivity("file_search", "done"),
    "response.web_search_call.searching": ToolActivity("web_search", "start"),
    "response.web_search_call.completed": ToolActivity("web_search", "done"),
    "response.code_interpreter_call.in_progress": ToolActivity("code_interpreter", "start"),
    "response.code_interpreter_call.completed": ToolActivity("code_interpreter", "done"),
}
TOOL_ITEMS: dict[str, ToolName] = {
    "file_search_call": "file_search",
    "web_search_call": "web_search",
    "code_interpreter_call": "code_interpreter",
}
NOT_OFFERED_ITEMS = frozenset(
    {
        *("function_call", "custom_tool_call", "computer_call", "local_shell_call", "apply_patch_call"),
        "mcp_approval_request",
    }
)
"""Actions that a model requests and waits for: nobody here performs them."""
ITEM_DONE = "response.output_item.done"
"""Has the details of a tool's call, after the event that says the call is done."""
REFUSAL_EVENT = "response.refusal.delta"
TEXT_EVENTS = frozenset({"response.output_text.delta", REFUSAL_EVENT})
ENDS = {f"response.{status}": status for status in ("completed", "incomplete", "failed")}
"""Events that end an answer, with its status then."""
ENDED = frozenset({*ENDS.values(), "cancelled"})
CUTS = {"max_output_tokens": LENGTH, "content_filter": FILTERED}
KNOWN_EVENTS = TOOL_EVENTS.keys() | TEXT_EVENTS | ENDS.keys() | {"error"}

_CITING = ("file_citation", "url_citation")
_TEXTS = {"output_text": "text", "refusal": "refusal"}
"""The types of parts with text, and the key of the text. The model sends a refusal instead of an answer."""


def exchange(_: Provider, prompt: Prompt) -> Exchange:
    """The call for a prompt."""
    return Exchange(prompt.model, body(prompt), reader())


def reader() -> Reading:
    """Reads one answer."""
    return Reading(Events(KNOWN_EVENTS), ResponsesAnswer())


def body(prompt: Prompt) -> dict[str, Any]:
    """The request of a prompt. Nothing is stored at the provider.

    `extra_body` may set or replace anything except what this backend is responsible for: model, conversation, output
    cap (the reserve is computed from it), and that the answer is streamed and not stored.
    """
    made, extra = parameters(prompt)
    effort = made.pop("reasoning_effort", None)
    if prompt.instructions:
        made["instructions"] = prompt.instructions
    if tools := list(_tools(prompt)):
        made["tools"] = tools
    if included := [
        what
        for what, files in ((tool_details.FILES, prompt.vector_stores), (tool_details.OUTPUTS, prompt.code_files))
        if files
    ]:
        made["include"] = included
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
        "input": [_item(stretch) for stretch in alternating(prompt.messages)],
        "max_output_tokens": prompt.max_output_tokens,
    }


class ResponsesAnswer:
    """What the events of one answer mean (`reading.Meaning`); only the last one has the usage."""

    usage = Usage()

    def __init__(self) -> None:
        self._characters = Characters()
        self._told: list[str] = []
        self._done: dict[str, ToolActivity] = {}
        """Finished tool calls, by their items' ids, until their details come, which nobody promises."""
        self._refused = False

    def said(self, kind: str, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        """What an event says."""
        if kind in TEXT_EVENTS or kind in ENDS:
            yield from self._done.values()
            self._done.clear()
        if kind in TEXT_EVENTS:
            self._refused = self._refused or kind == REFUSAL_EVENT
            yield from self._tell(self._characters.of(data["delta"]))
        elif kind in TOOL_EVENTS:
            yield from self._used(TOOL_EVENTS[kind], data.get("item_id"))
        elif kind == ITEM_DONE:
            done = self._done.pop(str(at(data, "item", "id")), None)
            yield from () if done is None else (replace(done, details=tool_details.of_item(data["item"])),)
        elif kind in ENDS:
            yield from self._finished(ENDS[kind], data)
        elif kind == "error":
            yield _failed(data)

    def whole(self, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        """What an answer says that is not streamed."""
        for item in listed(data.get("output")):
            if (name := TOOL_ITEMS.get(_kind(item))) is not None:
                yield ToolActivity(name, "start")
                yield ToolActivity(name, "done", tool_details.of_item(item))
        status = "failed" if data.get("error") else str(data.get("status"))
        if status not in ENDED:
            raise ValueError(status)
        yield from self._finished(status, {"response": data})

    def ended(self) -> Iterator[ProviderChunk]:
        """The stream ended before the answer did."""
        yield Failed("provider_error", NO_END)

    def _used(self, activity: ToolActivity, item_id: Any) -> Iterator[ToolActivity]:
        if activity.phase == "done" and isinstance(item_id, str):
            self._done[item_id] = activity
        else:
            yield activity

    def _tell(self, text: str) -> Iterator[TextDelta]:
        if text:
            self._told.append(text)
            yield TextDelta(text)

    def _finished(self, status: str, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        if status not in {"completed", "incomplete"}:
            yield _failed(data)
            return
        response = data["response"]
        usage = _usage(response)
        if NOT_OFFERED_ITEMS.intersection(map(_kind, listed(response.get("output")))):
            yield Failed("unexpected_tool_use", NOT_OFFERED, usage)
            return
        told = "".join(self._told)
        said = "".join(text for text, _ in _parts(response))
        # Some servers send no delta, or not the last ones.
        untold = said.removeprefix(told) if said.startswith(told) else ""
        yield from self._tell(untold or self._characters.rest())
        end = usage, identifier(response.get("id")), _citations(response, "".join(self._told))
        if status == "incomplete":
            reason = at(response, "incomplete_details", "reason")
            yield Incomplete(CUTS.get(str(reason), CUT), *end)
        elif self._refused or _refuses(response):
            yield Incomplete(REFUSED, *end)
        else:
            yield Completed(*end)


def _tools(prompt: Prompt) -> Iterator[dict[str, Any]]:
    if prompt.vector_stores:
        search: dict[str, Any] = {"type": "file_search", "vector_store_ids": list(prompt.vector_stores)}
        if prompt.only_attachment is not None:
            search["filters"] = {"type": "eq", "key": "attachment_id", "value": prompt.only_attachment}
        yield search if prompt.max_num_results is None else search | {"max_num_results": prompt.max_num_results}
    if prompt.web_search_context_size is not None:
        yield {"type": "web_search", "search_context_size": prompt.web_search_context_size}
    if prompt.code_files:
        yield {"type": "code_interpreter", "container": {"type": "auto", "file_ids": list(prompt.code_files)}}


def _item(stretch: Stretch) -> dict[str, Any]:
    kind = "input_text" if stretch.role == "user" else "output_text"
    texts = [{"type": kind, "text": text} for text in stretch.texts]
    images = [{"type": "input_image", "file_id": image, "detail": "auto"} for image in stretch.images]
    return {"type": "message", "role": stretch.role, "content": [*texts, *images]}


def _citations(response: dict[str, Any], told: str) -> tuple[Cited, ...]:
    """The citations of an answer's parts, with spans in the whole answer.

    An offset counts within its part. If the text told to the client is not the parts in their order, offsets mean
    nothing to its readers, and are dropped.
    """
    found: list[Cited] = []
    for before, text, annotation in itertools.islice(_annotated(response), MAX_CITED):
        span = span_of(at(annotation, "start_index"), at(annotation, "end_index"))
        span = _moved(span, before, text) if told.startswith(text, before) else None
        quoted = at(annotation, "text")
        if annotation["type"] == "url_citation":
            found += cited("web", at(annotation, "url"), title=at(annotation, "title"), text=quoted, span=span)
        else:
            found += cited("file", at(annotation, "file_id"), text=quoted, span=span)
    return tuple(found)


def _annotated(response: dict[str, Any]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each citation, with its part's text and the number of characters of the answer before that part."""
    before = 0
    for text, annotations in _parts(response):
        for annotation in annotations:
            if at(annotation, "type") in _CITING:
                yield before, text, annotation
        before += len(text)


def _parts(response: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The texts of an answer in their order, with their annotations."""
    for item in listed(response.get("output")):
        for part in listed(at(item, "content")):
            text = at(part, _TEXTS.get(_kind(part), ""))
            if isinstance(text, str):
                yield whole_characters(text), listed(at(part, "annotations"))


def _refuses(response: dict[str, Any]) -> bool:
    """Whether a part of the answer is a refusal."""
    return any(
        _kind(part) == "refusal" for item in listed(response.get("output")) for part in listed(at(item, "content"))
    )


def _kind(found: Any) -> str:
    return str(at(found, "type"))


def _moved(span: Span | None, by: int, text: str) -> Span | None:
    """The span of a text, moved to the whole answer; None if it is not within the text."""
    if span is None or not 0 <= span[0] <= span[1] <= len(text):
        return None
    return span[0] + by, span[1] + by


def _failed(data: dict[str, Any]) -> Failed:
    """The failure in an event, in any of the shapes that providers send; null is empty."""
    response = data.get("response")
    return refusals.failed(at(response, "error") or data.get("error") or data, _usage(response))


def _usage(response: Any) -> Usage:
    return usage_of(
        response,
        input_tokens=("usage", "input_tokens"),
        output_tokens=("usage", "output_tokens"),
        cache_read_input_tokens=("usage", "input_tokens_details", "cached_tokens"),
        cache_write_input_tokens=("usage", "input_tokens_details", "cache_write_tokens"),
        reasoning_tokens=("usage", "output_tokens_details", "reasoning_tokens"),
    )
