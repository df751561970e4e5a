"""A provider that needs no key: it speaks OpenAI's Responses API and does what markers in the user's text say.

Without a marker it answers with a few friendly words about the last message. Markers, anywhere in the last user text:

    [[say:TEXT]]          answers TEXT                       [[words:N]]          answers N words
    [[echo]]              answers the whole message          [[delay:MS]]         pause between two deltas
    [[first-token:MS]]    pause before the first delta       [[usage:IN,OUT]]     reports this usage
    [[no-usage]]          reports no usage                   [[tool:NAME]]        uses a tool first, e.g. web_search
    [[hold:NAME]]         stops after the first delta until NAME is released
    [[hold-start:NAME]]   stops before the first delta until NAME is released
    [[hold-tool:NAME]]    stops within each tool call until NAME is released
    [[incomplete:REASON]] cut by the provider, e.g. max_output_tokens
    [[failed:CODE]]       ends with response.failed          [[error:CODE]]       ends with an error event
    [[status:N]]          answers with this HTTP status      [[retry-after:S]]    and this header
    [[fail-times:N]]      only for the first N calls with this text
    [[cut:N]]             breaks the connection after N deltas
    [[end:N]]             ends the stream after N deltas, without a last word
    [[garbage:N]]         sends what cannot be parsed after N deltas
    [[stall:N]]           falls silent after N deltas
    [[html]]              answers 200 with a page            [[redirect]]         answers 307

`POST /control/release/NAME` releases a hold, now or in advance; `GET /control/stats` tells how many calls came, how
many streams are open and how many the client broke off. Files and vector stores are in `scripted_files`. All state is
of this process.
"""

import argparse
import asyncio
import itertools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from minichat.local import scripted_files

DEFAULT_DELAY_MS = 15
ECHOED_CHARACTERS = 200
HOLD_SECONDS = 120

_MARKER = re.compile(r"\[\[([a-z-]+)(?::(.*?))?\]\]", re.DOTALL)
_ANSWERING = ("incomplete", "failed", "error")


@dataclass(frozen=True, slots=True)
class Script:
    """What the markers of one message say."""

    text: str
    said: dict[str, str]
    tools: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Script":
        """The script in a user's text; what a conversation to be summarized says in it is none."""
        if "<conversation>" in text:
            return cls(text, {"say": _summary(text), "delay": "0"}, ())
        found = _MARKER.findall(text)
        tools = tuple(value for name, value in found if name == "tool")
        return cls(_MARKER.sub("", text).strip(), dict(found), tools)

    def number(self, name: str, default: int) -> int:
        """A marker's number; the default when it has none."""
        said = self.said.get(name, "")
        return int(said) if said.isdecimal() else default

    def pieces(self) -> list[str]:
        """The answer, delta by delta."""
        if "say" in self.said:
            answer = self.said["say"]
        elif "words" in self.said:
            answer = " ".join(f"word{number}" for number in range(1, self.number("words", 1) + 1))
        elif "echo" in self.said:
            answer = self.text
        else:
            answer = f"You said: {self.text[:ECHOED_CHARACTERS] or 'nothing'} — and I heard every word."
        return re.findall(r"\S+\s*|\s+", answer) or [answer]


@dataclass(slots=True)
class State:
    """What this process remembers."""

    calls: int = 0
    open_streams: int = 0
    broken_off: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    releases: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))


class Cut(Exception):
    """Raised inside a response to break its connection."""


def create_app() -> Starlette:
    """The provider as an ASGI app."""
    app = Starlette(
        routes=[
            Route("/v1/responses", _responses, methods=["POST"]),
            Route("/control/release/{name}", _release, methods=["POST"]),
            Route("/control/stats", _stats),
            *scripted_files.routes(),
            Route("/health", lambda _: JSONResponse({"status": "ok"})),
        ]
    )
    app.state.provider = State()
    app.state.files = scripted_files.Files()
    return app


async def _release(request: Request) -> Response:
    state: State = request.app.state.provider
    state.releases[request.path_params["name"]].set()
    return JSONResponse({"released": request.path_params["name"]})


async def _stats(request: Request) -> Response:
    state: State = request.app.state.provider
    return JSONResponse({"calls": state.calls, "open": state.open_streams, "broken_off": state.broken_off})


async def _responses(request: Request) -> Response:
    state: State = request.app.state.provider
    state.calls += 1
    body = await request.json()
    script = Script.of(_last_text(body))
    if (refusal := _refusal(script, state)) is not None:
        return refusal
    answer = Answer(body, script, state)
    if not body.get("stream"):
        return JSONResponse(answer.final())
    return StreamingResponse(answer.stream(), media_type="text/event-stream")


def _refusal(script: Script, state: State) -> Response | None:
    if "html" in script.said:
        return HTMLResponse("<html><body>Service temporarily unavailable</body></html>")
    if "redirect" in script.said:
        return RedirectResponse("/elsewhere", 307)
    if "status" not in script.said:
        return None
    key = json.dumps([script.text, script.said])
    state.failures[key] += 1
    if "fail-times" in script.said and state.failures[key] > script.number("fail-times", 0):
        return None
    headers = {"retry-after": script.said["retry-after"]} if "retry-after" in script.said else {}
    problem = {
        "error": {"code": "scripted", "message": "As told: see https://example.com, key sk-proj-0123456789abcdef"}
    }
    return JSONResponse(problem, script.number("status", 500), headers)


class Answer:
    """One answer in the wire format, as a stream of events or whole."""

    def __init__(self, body: dict[str, Any], script: Script, state: State) -> None:
        self._model = body.get("model", "scripted")
        self._script = script
        self._state = state
        self._numbers = itertools.count()
        self._id = f"resp_{state.calls:032x}"
        self._item_id = f"msg_{state.calls:032x}"
        self._place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        self._pieces = script.pieces()
        self._text = "".join(self._pieces)
        sent = len(json.dumps(body.get("input", ""), ensure_ascii=False).encode())
        used = (math.ceil(sent / 4), math.ceil(len(self._text.encode()) / 4))
        given = script.said.get("usage")
        self._usage = tuple(int(part) for part in given.split(",")) if given else used

    async def stream(self) -> AsyncIterator[bytes]:
        """The events, as the markers want them."""
        self._state.open_streams += 1
        finished = False
        try:
            async for event in self._events():
                yield event
            finished = True
        except Cut:
            finished = True
            raise
        finally:
            self._state.open_streams -= 1
            self._state.broken_off += not finished

    def final(self) -> dict[str, Any]:
        """The whole response object."""
        return self._response("completed", self._usage_object(), [self._item("completed", self._text)])

    async def _events(self) -> AsyncIterator[bytes]:
        async for event in self._opening():
            yield event
        async for event in self._deltas():
            yield event
        if "end" in self._script.said:
            return
        if not any(name in self._script.said for name in _ANSWERING):
            yield self._event("response.output_text.done", **self._place, text=self._text, logprobs=[])
            yield self._event("response.content_part.done", **self._place, part=_part(self._text))
            yield self._event("response.output_item.done", output_index=0, item=self._item("completed", self._text))
        yield self._last_word()

    async def _opening(self) -> AsyncIterator[bytes]:
        said = self._script.said
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=self._response("in_progress", None, []))
        await asyncio.sleep(self._script.number("first-token", 0) / 1000)
        if "hold-start" in said:
            await self._held(said["hold-start"])
        for tool in self._script.tools:
            *going_on, completed = self._tool(tool)
            for event in going_on:
                yield event
            if "hold-tool" in said:
                await self._held(said["hold-tool"])
            yield completed
        yield self._event("response.output_item.added", output_index=0, item=self._item("in_progress", None))
        yield self._event("response.content_part.added", **self._place, part=_part(""))

    async def _deltas(self) -> AsyncIterator[bytes]:
        pause = self._script.number("delay", DEFAULT_DELAY_MS) / 1000
        for number, piece in enumerate(self._pieces):
            if number:
                await asyncio.sleep(pause)
            async for event in self._incident(number):
                yield event
            if self._script.number("end", -1) == number:
                return
            yield self._event("response.output_text.delta", **self._place, delta=piece, logprobs=[])
            if number == 0 and "hold" in self._script.said:
                await self._held(self._script.said["hold"])
        async for event in self._incident(len(self._pieces)):
            yield event

    async def _incident(self, number: int) -> AsyncIterator[bytes]:
        """What happens before the delta of this number."""
        script = self._script
        if script.number("garbage", -1) == number:
            yield b"event: response.output_text.delta\ndata: {not json\n\n"
        if script.number("cut", -1) == number:
            raise Cut
        if script.number("stall", -1) == number:
            await asyncio.sleep(HOLD_SECONDS)

    def _last_word(self) -> bytes:
        said = self._script.said
        usage = self._usage_object()
        if "error" in said:
            return self._event("error", code=said["error"], message="As told, in resp_0123456789.", param=None)
        if "failed" in said:
            response = self._response("failed", usage, [])
            response["error"] = {"code": said["failed"], "message": "As told, in resp_0123456789."}
            return self._event("response.failed", response=response)
        output = [self._item("completed", self._text)]
        if "incomplete" in said:
            response = self._response("incomplete", usage, [self._item("incomplete", self._text)])
            response["incomplete_details"] = {"reason": said["incomplete"]}
            return self._event("response.incomplete", response=response)
        return self._event("response.completed", response=self._response("completed", usage, output))

    def _tool(self, name: str) -> list[bytes]:
        words = {"code_interpreter": ("in_progress", "interpreting", "completed")}.get(
            name, ("in_progress", "searching", "completed")
        )
        item_id = f"ws_{self._state.calls:032x}"
        return [self._event(f"response.{name}_call.{word}", output_index=0, item_id=item_id) for word in words]

    def _event(self, name: str, **data: Any) -> bytes:
        told = json.dumps({"type": name, "sequence_number": next(self._numbers), **data}, ensure_ascii=False)
        return f"event: {name}\ndata: {told}\n\n".encode()

    def _usage_object(self) -> dict[str, Any] | None:
        if "no-usage" in self._script.said:
            return None
        tokens_in, tokens_out = self._usage
        return {
            "input_tokens": tokens_in,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens_in + tokens_out,
        }

    def _response(self, status: str, usage: dict[str, Any] | None, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": 1_760_000_000,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "metadata": {},
            "model": self._model,
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
        content = [] if text is None else [_part(text)]
        return {"id": self._item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    async def _held(self, name: str) -> None:
        async with asyncio.timeout(HOLD_SECONDS):
            await self._state.releases[name].wait()


def _summary(request: str) -> str:
    """How each message of a conversation begins."""
    beginnings = re.findall(r"<message [^>]*>\n(.{0,60})", request)
    return f"<analysis>{len(beginnings)} messages.</analysis><summary>{' / '.join(beginnings)}</summary>"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _last_text(body: dict[str, Any]) -> str:
    given = body.get("input", "")
    if isinstance(given, str):
        return given
    users = [message for message in given if message.get("role") == "user"]
    if not users:
        return ""
    content = users[-1].get("content", "")
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description="A scripted provider that speaks OpenAI's Responses API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(create_app(), host=options.host, port=options.port, log_level="error", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
