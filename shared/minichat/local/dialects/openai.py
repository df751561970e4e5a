"""OpenAI's two APIs; Azure OpenAI and most self-hosted servers speak one of them, too."""

import itertools
from collections.abc import Iterator
from typing import Any

from minichat.local.dialects.dialect import Cite, ScriptedReply, sse

CREATED = 1_760_000_000

_REASONS = {"max_output_tokens": "length"}


class Responses:
    """OpenAI's Responses API."""

    media_type = "text/event-stream"

    def __init__(self, said: ScriptedReply) -> None:
        self._said = said
        self._numbers = itertools.count()
        self._item_id = f"msg_{said.number:032x}"
        self._calls: list[dict[str, Any]] = []

    @property
    def _index(self) -> int:
        """The message stands behind the calls of tools."""
        return len(self._calls)

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": self._index, "content_index": 0}

    def opening(self) -> Iterator[bytes]:
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=self._response("in_progress", [], usage=None))

    def tool_begins(self, name: str) -> Iterator[bytes]:
        call = self._call(name, "in_progress")
        yield self._event("response.output_item.added", output_index=self._index, item=call)
        yield self._tool(name, "in_progress", call)
        yield self._tool(name, "interpreting" if name == "code_interpreter" else "searching", call)

    def tool_ends(self, name: str) -> Iterator[bytes]:
        call = self._call(name, "completed") | self._work(name)
        yield self._tool(name, "completed", call)
        yield self._event("response.output_item.done", output_index=self._index, item=call)
        self._calls.append(call)

    def text_begins(self) -> Iterator[bytes]:
        item = self._item("in_progress", None)
        yield self._event("response.output_item.added", output_index=self._index, item=item)
        yield self._event("response.content_part.added", **self._place, part=self._part("", []))

    def delta(self, text: str) -> bytes:
        if self._said.refuses:
            return self._event("response.refusal.delta", **self._place, delta=text)
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def raw(self, payload: bytes) -> bytes:
        return sse("response.output_text.delta", payload)

    def unknown(self) -> bytes:
        return self._event("response.invented_tomorrow", text="not for you")

    def completed(self) -> Iterator[bytes]:
        text = self._said.text
        for number, annotation in enumerate(self._annotations()):
            told = {"annotation_index": number, "annotation": annotation}
            yield self._event("response.output_text.annotation.added", **self._place, **told)
        if self._said.refuses:
            yield self._event("response.refusal.done", **self._place, refusal=text)
        else:
            yield self._event("response.output_text.done", **self._place, text=text, logprobs=[])
        yield self._event("response.content_part.done", **self._place, part=self._part(text, self._annotations()))
        item = self._item("completed", text)
        yield self._event("response.output_item.done", output_index=self._index, item=item)
        yield self._event("response.completed", response=self.whole())

    def incomplete(self, reason: str) -> Iterator[bytes]:
        output = [*self._calls, self._item("incomplete", self._said.text)]
        response = self._response("incomplete", output, self._usage())
        response["incomplete_details"] = {"reason": reason}
        yield self._event("response.incomplete", response=response)

    def failed(self, code: str, *, flat: bool) -> Iterator[bytes]:
        problem = {"code": code, "message": self._said.message}
        if flat:
            yield self._event("error", **problem, param=None)
        else:
            response = self._response("failed", [], self._usage()) | {"error": problem}
            yield self._event("response.failed", response=response)

    def whole(self) -> dict[str, Any]:
        return self._response("completed", [*self._calls, self._item("completed", self._said.text)], self._usage())

    @staticmethod
    def problem(status: int, message: str) -> dict[str, Any]:
        return _openai_problem(status, message)

    def _tool(self, name: str, word: str, call: dict[str, Any]) -> bytes:
        return self._event(f"response.{name}_call.{word}", output_index=self._index, item_id=call["id"])

    def _call(self, name: str, status: str) -> dict[str, Any]:
        """The call of a tool, before anything is known of its work."""
        call = {"id": f"{name[:2]}_{self._said.number:024x}{self._index:08x}", "type": f"{name}_call", "status": status}
        match name:
            case "file_search":
                return call | {"queries": [self._said.work.query], "results": None}
            case "web_search":
                return call | {"action": {"type": "search", "query": self._said.work.query}}
        return call | {"code": "print(1 + 1)", "container_id": f"cntr_{self._said.number:032x}", "outputs": None}

    def _work(self, name: str) -> dict[str, Any]:
        """What it did, of which more is told to who asks for it."""
        work = self._said.work
        if name == "file_search" and "file_search_call.results" in work.included:
            return {
                "results": [
                    {"file_id": file, "filename": called, "score": 0.5, "text": self._said.quoted, "attributes": {}}
                    for file, called in work.files
                ]
            }
        if name == "code_interpreter" and "code_interpreter_call.outputs" in work.included:
            return {"outputs": [{"type": "logs", "logs": work.output}]}
        return {}

    def _event(self, name: str, **data: Any) -> bytes:
        return sse(name, {"type": name, "sequence_number": next(self._numbers), **data})

    def _usage(self) -> dict[str, Any] | None:
        if (tokens := self._said.tokens) is None:
            return None
        return {
            "input_tokens": tokens.given,
            "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
            "output_tokens": tokens.made,
            "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": tokens.given + tokens.made,
        }

    def _response(self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": f"resp_{self._said.number:032x}",
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "metadata": {},
            "model": self._said.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
        }

    def _item(self, status: str, text: str | None) -> dict[str, Any]:
        content = [] if text is None else [self._part(text, self._annotations())]
        return {"id": self._item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _part(self, text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        if self._said.refuses:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}

    def _annotations(self) -> list[dict[str, Any]]:
        return [_annotation(cite, self._said.text) for cite in self._said.cites]


class ChatCompletions:
    """OpenAI's Chat Completions API."""

    media_type = "text/event-stream"

    def __init__(self, said: ScriptedReply) -> None:
        self._said = said
        self._annotations = [{"type": "url_citation", "url_citation": _page(page, said.text)} for page in said.pages]
        self._told = False

    def opening(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})

    def tool_begins(self, name: str) -> Iterator[bytes]:
        """Nobody is told that a tool is at work."""
        del name
        yield from ()

    def tool_ends(self, name: str) -> Iterator[bytes]:
        """Only what was found leaves a trace here: the annotations, which come early then."""
        if name == "web_search":
            yield from self._annotated()

    def text_begins(self) -> Iterator[bytes]:
        yield from ()

    def delta(self, text: str) -> bytes:
        return self._chunk({"refusal" if self._said.refuses else "content": text})

    def raw(self, payload: bytes) -> bytes:
        return sse(None, payload)

    def unknown(self) -> bytes:
        return sse("invented.tomorrow", {"text": "not for you"}) + self._chunk({"invented": "not for you"})

    def completed(self) -> Iterator[bytes]:
        yield from self._ending("stop")

    def incomplete(self, reason: str) -> Iterator[bytes]:
        yield from self._ending(_REASONS.get(reason, reason))

    def failed(self, code: str, *, flat: bool) -> Iterator[bytes]:
        problem = {"code": code, "message": self._said.message, "type": code, "param": None}
        yield sse(None, {"error": problem})
        if not flat:
            yield sse(None, b"[DONE]")

    def whole(self) -> dict[str, Any]:
        said = (None, self._said.text) if self._said.refuses else (self._said.text, None)
        message: dict[str, Any] = {"role": "assistant", "content": said[0], "refusal": said[1]}
        message["annotations"] = self._annotations
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return self._head("chat.completion") | {"choices": [choice], "usage": self._usage()}

    @staticmethod
    def problem(status: int, message: str) -> dict[str, Any]:
        return _openai_problem(status, message)

    def _annotated(self) -> Iterator[bytes]:
        if self._annotations and not self._told:
            self._told = True
            yield self._chunk({"annotations": self._annotations})

    def _ending(self, reason: str) -> Iterator[bytes]:
        yield from self._annotated()
        yield self._chunk({}, reason)
        if self._said.tokens is not None:
            yield sse(None, self._head("chat.completion.chunk") | {"choices": [], "usage": self._usage()})
        yield sse(None, b"[DONE]")

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return sse(None, self._head("chat.completion.chunk") | {"choices": [choice], "usage": None})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._said.number:032x}",
            "object": kind,
            "created": CREATED,
            "model": self._said.model,
            "service_tier": "default",
            "system_fingerprint": None,
        }

    def _usage(self) -> dict[str, Any] | None:
        if (tokens := self._said.tokens) is None:
            return None
        return {
            "prompt_tokens": tokens.given,
            "completion_tokens": tokens.made,
            "total_tokens": tokens.given + tokens.made,
            "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
            "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
        }


def _annotation(cite: Cite, text: str) -> dict[str, Any]:
    if cite.source == "file":
        return {"type": "file_citation", "file_id": cite.target, "filename": cite.title, "index": len(text)}
    return {"type": "url_citation", **_page(cite, text)}


def _page(cite: Cite, text: str) -> dict[str, Any]:
    return {"url": cite.target, "title": cite.title, "start_index": 0, "end_index": len(text)}


def _openai_problem(status: int, message: str) -> dict[str, Any]:
    del status
    return {"error": {"code": "scripted", "message": message, "type": "scripted", "param": None}}
