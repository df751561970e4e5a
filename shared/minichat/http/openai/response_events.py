"""The events of a turn's stream as those of OpenAI's Responses API, and the response that they make together.

Everything follows from the turn and its events alone, the numbers too: whichever instance tells a stream again tells
the same events under the same numbers. Where ours leave numbers out, because a process died or single events are no
longer kept, those here jump as well, so that no number ever names two events.
"""

from collections.abc import Callable, Iterator
from typing import Any

from minichat.domain.turn import Turn
from minichat.http.openai import ids
from minichat.services.channel import Numbered

WIDEST = 8
"""More events than one of ours becomes, where it could be lost: the gap that each missing one leaves."""

_INCOMPLETE = {"length": "max_output_tokens"}
_CODES = {
    "rate_limited": "rate_limit_exceeded",
    "context_length_exceeded": "invalid_prompt",
    "validation_error": "invalid_prompt",
}
_STARTS = {
    "web_search": ("ws_", "web_search_call", ("in_progress", "searching")),
    "file_search": ("fs_", "file_search_call", ("in_progress", "searching")),
    "code_interpreter": ("ci_", "code_interpreter_call", ("in_progress", "interpreting")),
}
"""By tool: how its items' ids begin, their type, and the events that tell its work."""

Event = tuple[str, dict[str, Any]]


def response_of(turn: Turn, *, is_temporary: bool) -> dict[str, Any]:
    """The response of a turn as it begins. What a request said and the turn does not keep is not repeated."""
    continued = turn.prev_request_id
    return {
        "id": ids.response_id(turn.chat_id, turn.request_id),
        "object": "response",
        "created_at": int(turn.started_at.timestamp()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": turn.reserve.max_output_tokens,
        "model": turn.reserve.effective_model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None if continued is None else ids.response_id(turn.chat_id, continued),
        "conversation": None if is_temporary else {"id": ids.conversation_id(turn.chat_id)},
        "reasoning": {"effort": None, "summary": None},
        "store": not is_temporary,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [{"type": "web_search"}] if turn.web_search_enabled else [],
        "top_p": None,
        "truncation": "disabled" if is_temporary else "auto",
        "usage": None,
        "user": None,
        "metadata": {},
    }


class ResponseEvents:
    """Translates a turn's events, from the first one on; `response` is what has come of them."""

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response
        self.is_over = False
        self._turn = response["id"].removeprefix("resp_")[-32:]
        self._seen = self._next = 0
        self._texts: list[str] = []
        self._output: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._message: int | None = None
        self._message_id = ""
        self._working: dict[str, list[int]] = {name: [] for name in _STARTS}
        """By tool: the places of its calls that go on, the oldest first."""
        self._told: dict[str, Callable[[dict[str, Any]], Iterator[Event]]] = {
            "stream_started": self._started,
            "delta": self._delta,
            "tool": self._tool,
            "citations": self._citations,
            "done": self._done,
            "error": self._error,
        }

    def of(self, one: Numbered) -> list[dict[str, Any]]:
        """What an event becomes; nothing for a ping."""
        if one.number is None:
            return []
        self._next += max(one.number - self._seen - 1, 0) * WIDEST
        self._seen = one.number
        return [self._numbered(*event) for event in self._told[one.event.name](one.event.data)]

    def _numbered(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        self._next += 1
        return {"type": f"response.{kind}", "sequence_number": self._next - 1, **data}

    def _whole(self) -> dict[str, Any]:
        return {"response": {**self.response, "output": [{**item} for item in self._output]}}

    def _started(self, data: dict[str, Any]) -> Iterator[Event]:
        self._message_id = ids.message_id(data["message_id"])
        yield "created", self._whole()
        yield "in_progress", self._whole()

    def _delta(self, data: dict[str, Any]) -> Iterator[Event]:
        yield from self._opened()
        self._texts.append(data["content"])
        yield "output_text.delta", {**self._part(), "delta": data["content"], "logprobs": []}

    def _opened(self) -> Iterator[Event]:
        if self._message is not None:
            return
        self._message = len(self._output)
        item = {"id": self._message_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        self._output.append(item)
        yield "output_item.added", {"output_index": self._message, "item": {**item}}
        yield "content_part.added", {**self._part(), "part": self._text_part("", [])}

    def _part(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": self._message, "content_index": 0}

    @staticmethod
    def _text_part(text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}

    def _tool(self, data: dict[str, Any]) -> Iterator[Event]:
        name, phase, going_on = data["name"], data["phase"], self._working[data["name"]]
        beginning, kind, steps = _STARTS[name]
        if phase == "start" or (phase == "done" and not going_on):
            at = len(self._output)
            going_on.append(at)
            item = {"id": f"{beginning}{self._turn}_{at}", "type": kind, "status": "in_progress", **_worked(name, {})}
            self._output.append(item)
            yield "output_item.added", {"output_index": at, "item": {**item}}
            for step in steps:
                yield f"{kind}.{step}", {"output_index": at, "item_id": item["id"]}
        if phase == "done":
            at = going_on.pop(0)
            item = self._output[at]
            item |= {"status": "completed", **_worked(name, data["details"])}
            yield f"{kind}.completed", {"output_index": at, "item_id": item["id"]}
            yield "output_item.done", {"output_index": at, "item": {**item}}

    def _citations(self, data: dict[str, Any]) -> Iterator[Event]:
        yield from self._opened()
        self._annotations = [annotation(one, sum(map(len, self._texts))) for one in data["items"]]
        for number, one in enumerate(self._annotations):
            yield "output_text.annotation.added", {**self._part(), "annotation_index": number, "annotation": one}

    def _done(self, data: dict[str, Any]) -> Iterator[Event]:
        signal = data["completion_signal"]
        reason = signal.get("reason")
        is_whole = reason is None
        yield from self._closed("completed" if is_whole else "incomplete")
        self.response["usage"] = usage_of(data["usage"])
        if is_whole:
            yield self._end("completed")
        else:
            self.response["incomplete_details"] = {"reason": _INCOMPLETE.get(reason, reason)}
            yield self._end("incomplete")

    def _error(self, data: dict[str, Any]) -> Iterator[Event]:
        yield from self._closed("incomplete")
        if data["code"] == "cancelled":
            # There is no event of that name.
            self.response["status"] = "cancelled"
            yield self._end("incomplete", "cancelled")
            return
        self.response["error"] = {"code": _CODES.get(data["code"], "server_error"), "message": data["message"]}
        yield self._end("failed")

    def _closed(self, status: str) -> Iterator[Event]:
        """The ends of what is not finished yet."""
        for at in sorted(place for places in self._working.values() for place in places):
            self._output[at]["status"] = "incomplete"
            yield "output_item.done", {"output_index": at, "item": {**self._output[at]}}
        if self._message is None:
            return
        text = "".join(self._texts)
        part = self._text_part(text, self._annotations)
        yield "output_text.done", {**self._part(), "text": text, "logprobs": []}
        yield "content_part.done", {**self._part(), "part": part}
        item = self._output[self._message]
        item |= {"status": status, "content": [part]}
        yield "output_item.done", {"output_index": self._message, "item": {**item}}

    def _end(self, kind: str, status: str | None = None) -> Event:
        self.is_over = True
        self.response |= {"status": status or kind, "output": self._output}
        return kind, self._whole()


def annotation(citation: dict[str, Any], length: int) -> dict[str, Any]:
    """A source of the answer; one that supports no part of it by name stands at the answer's end, `length`."""
    span = citation.get("span", {"start": length, "end": length})
    if citation["source"] == "file":
        named = {"file_id": citation["attachment_id"], "filename": citation["title"]}
        return {"type": "file_citation", **named, "index": span["end"]}
    page = {"url": citation["url"], "title": citation["title"]}
    return {"type": "url_citation", **page, "start_index": span["start"], "end_index": span["end"]}


def usage_of(told: dict[str, Any] | None) -> dict[str, Any] | None:
    """The tokens of an answer; None where they are not known."""
    if told is None:
        return None
    cached, written = told.get("cache_read_input_tokens", 0), told.get("cache_write_input_tokens", 0)
    return {
        "input_tokens": told["input_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": told["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": told.get("reasoning_tokens", 0)},
        "total_tokens": told["input_tokens"] + told["output_tokens"],
    }


def _worked(name: str, details: dict[str, Any]) -> dict[str, Any]:
    """What a tool's call has done, as far as it is told."""
    if name == "web_search":
        query = details.get("query", "")
        return {"action": {"type": "search", "query": query, "queries": [query] if query else []}}
    if name == "file_search":
        found = [
            {"file_id": one["attachment_id"], "filename": one["title"]} for one in details.get("files_searched", ())
        ]
        return {"queries": [], "results": found or None}
    output = details.get("output")
    logs = [] if output is None else [{"type": "logs", "logs": output}]
    return {"code": None, "container_id": "", "outputs": logs or None}
