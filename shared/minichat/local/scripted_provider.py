"""A provider that needs no key: it speaks five providers' APIs and does what markers in the user's text say.

    POST /v1/responses                 OpenAI Responses       (/openai/v1/responses and /openai/responses: Azure)
    POST /v1/chat/completions          OpenAI Chat Completions
    POST /v1/messages                  Anthropic Messages
    POST /model/MODEL/converse-stream  Amazon Bedrock

Without a marker it answers with a few friendly words about the last message. It uses the tools that it is offered,
and cites what they find: an example of a page, a file of the vector stores. Markers, anywhere in the last user text:

    [[say:TEXT]]          answers TEXT                       [[words:N]]          answers N words
    [[echo]]              answers the whole message          [[delay:MS]]         pause between two deltas
    [[first-token:MS]]    pause before the first delta       [[no-usage]]         reports no usage
    [[usage:IN,OUT]]      reports this usage; up to three more numbers are cache read, cache write and reasoning
    [[tool:NAME]]         uses a tool first, e.g. web_search [[query:TEXT]]       what it looks for on the web
    [[output:TEXT]]       what its code prints
    [[cite:URL TITLE]]    cites a page; without any, nothing [[cite-file:ID NAME]] cites a file
    [[hold:NAME]]         stops after the first delta until NAME is released
    [[hold-start:NAME]]   stops before the first delta until NAME is released
    [[hold-tool:NAME]]    stops within each tool call until NAME is released
    [[incomplete:REASON]] cut by the provider, e.g. max_output_tokens
    [[refuse]]            the text is a refusal
    [[failed:CODE]]       ends with a failure                [[error:CODE]]       ends with its other shape
    [[status:N]]          answers with this HTTP status      [[retry-after:S]]    and this header
    [[fail-times:N]]      only for the first N calls with this text
    [[cut:N]]             breaks the connection after N deltas
    [[end:N]]             ends the stream after N deltas, without a last word
    [[half:N]]            ends the stream in the middle of an event after N deltas
    [[garbage:N]]         sends what cannot be parsed after N deltas
    [[mojibake:N]]        sends what is not UTF-8 after N deltas
    [[flood:N]]           sends an event of 10 MB after N deltas
    [[unknown:N]]         sends an event that nobody knows after N deltas
    [[stall:N]]           falls silent after N deltas
    [[bytes:N]]           sends pieces of N bytes            [[instructions]]     answers what it was instructed
    [[html]]              answers 200 with a page            [[redirect]]         answers 307
    [[problem]]           answers 200 with the body of a refusal
    [[strict]]            answers 400 to a conversation whose roles do not alternate

`POST /control/release/NAME` releases a hold, now or in advance; `GET /control/stats` tells how many calls came, and how
many of the system's own tasks besides, how many streams are open and how many the client broke off. Files and vector
stores are in `scripted_files`. All state is of this process.
"""

import argparse
import asyncio
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from minichat.local import scripted_files
from minichat.local.dialects.anthropic import Messages
from minichat.local.dialects.bedrock import Converse
from minichat.local.dialects.dialect import SECRETS, Cite, Dialect, ScriptedReply, Tokens, Work, wrong_identity
from minichat.local.dialects.openai import ChatCompletions, Responses
from minichat.local.scripted_tasks import MARKER, answer_of_task, instructed

DEFAULT_DELAY_MS = 15
ECHOED_CHARACTERS = 200
EXAMPLE = "https://example.com/found An example"
HOLD_SECONDS = 120
FLOOD_BYTES = 10_000_000

_KEY_HEADERS = ("authorization", "api-key", "x-api-key")
_UNREADABLE = {"garbage": b"{not json", "mojibake": b'{"text": "\xff\xfe"}'}


@dataclass(frozen=True, slots=True)
class Script:
    """What the markers of one message say."""

    text: str
    said: dict[str, str]
    tools: tuple[str, ...]
    cites: tuple[Cite, ...] | None

    @classmethod
    def of(cls, text: str) -> "Script":
        """The script in a user's text. Markers in the material of a system task do not count."""
        if (answer := answer_of_task(text)) is not None:
            return cls(text, {"say": answer, "delay": "0"}, (), ())
        found = MARKER.findall(text)
        tools = tuple(value for name, value in found if name == "tool")
        cites = tuple(_cite(name, value) for name, value in found if name in {"cite", "cite-file"} and value)
        told = any(name.startswith("cite") for name, _ in found)
        return cls(MARKER.sub("", text).strip(), dict(found), tools, cites if told else None)

    def number(self, name: str, default: int) -> int:
        """A marker's number, or the default."""
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
    """The state of this process."""

    calls: int = 0
    of_the_system: int = 0
    open_streams: int = 0
    broken_off: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    releases: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))


class ConnectionCut(Exception):
    """Raised inside a response to break its connection."""


def create_app() -> Starlette:
    """The provider as an ASGI app."""
    dialects: dict[str, type[Dialect]] = {
        "/v1/responses": Responses,
        "/openai/v1/responses": Responses,
        "/openai/responses": Responses,
        "/v1/chat/completions": ChatCompletions,
        "/v1/messages": Messages,
        "/model/{model:path}/converse-stream": Converse,
    }
    app = Starlette(
        routes=[
            *(Route(path, partial(_answer, dialect=dialect), methods=["POST"]) for path, dialect in dialects.items()),
            Route("/control/release/{name}", _release, methods=["POST"]),
            Route("/control/stats", _stats),
            *scripted_files.routes(),
            Route("/health", lambda _: JSONResponse({"status": "ok"})),
        ]
    )
    app.state.provider = State()
    app.state.files = scripted_files.ScriptedFiles()
    return app


async def _release(request: Request) -> Response:
    state: State = request.app.state.provider
    state.releases[request.path_params["name"]].set()
    return JSONResponse({"released": request.path_params["name"]})


async def _stats(request: Request) -> Response:
    state: State = request.app.state.provider
    return JSONResponse(
        {
            "calls": state.calls,
            "of_the_system": state.of_the_system,
            "open": state.open_streams,
            "broken_off": state.broken_off,
        }
    )


async def _answer(request: Request, *, dialect: type[Dialect]) -> Response:
    state: State = request.app.state.provider
    body = await request.json()
    model = request.path_params.get("model")
    given = body.get("input", body.get("messages", ""))
    text = _last_text(given)
    of_the_system = answer_of_task(text) is not None
    state.of_the_system += of_the_system
    state.calls += not of_the_system
    script = Script.of(instructed(text, body))
    key = next((request.headers[name] for name in _KEY_HEADERS if name in request.headers), "no key")
    message = f"As told with {key}: {', '.join(SECRETS)}."
    if (refusal := _refusal(script, state, dialect, message)) is not None:
        return refusal
    if "strict" in script.said and not _alternates(given):
        return JSONResponse(dialect.problem(400, "Conversation roles must alternate."), 400)
    if (wrong := wrong_identity(body, request.headers.get("traceparent"))) is not None:
        return JSONResponse(dialect.problem(400, wrong), 400)
    text = "".join(script.pieces())
    files = request.app.state.files.held_by(_stores(body))
    tools, cites = _used(script, body, files)
    script = replace(script, tools=tools)
    name, tokens, refuses = model or body.get("model", "scripted"), _tokens(script, given), "refuse" in script.said
    said = ScriptedReply(state.calls, name, text, tokens, message, cites, _work(script, body, files), refuses)
    if not (body.get("stream") or model):
        return JSONResponse(dialect(said).whole())
    return StreamingResponse(ScriptedAnswer(dialect(said), script, state).stream(), media_type=dialect.media_type)


def _refusal(script: Script, state: State, dialect: type[Dialect], message: str) -> Response | None:
    if "html" in script.said:
        return HTMLResponse("<html><body>Service temporarily unavailable</body></html>")
    if "redirect" in script.said:
        return RedirectResponse("/elsewhere", 307)
    if "problem" in script.said:
        return JSONResponse(dialect.problem(500, message))
    if "status" not in script.said:
        return None
    key = json.dumps([script.text, script.said])
    state.failures[key] += 1
    if "fail-times" in script.said and state.failures[key] > script.number("fail-times", 0):
        return None
    headers = {"retry-after": script.said["retry-after"]} if "retry-after" in script.said else {}
    status = script.number("status", 500)
    return JSONResponse(dialect.problem(status, message), status, headers)


def _used(
    script: Script, body: dict[str, Any], files: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, ...], tuple[Cite, ...]]:
    """The tools that an answer uses (by default those that its request offers), and what it cites."""
    found = {"file_search": Cite("file", *files[0]) if files else None, "web_search": _cite("cite", EXAMPLE)}
    runs_code = any(tool.get("type") == "code_interpreter" for tool in body.get("tools") or [])
    offered = (
        ("file_search", bool(files)),
        ("web_search", _may_search_the_web(body)),
        ("code_interpreter", runs_code),
    )
    tools = script.tools or tuple(tool for tool, is_offered in offered if is_offered)
    if script.cites is not None:
        return tools, script.cites
    return tools, tuple(cite for tool, cite in found.items() if tool in tools and cite is not None)


def _work(script: Script, body: dict[str, Any], files: tuple[tuple[str, str], ...]) -> Work:
    told = {name: script.said[name] for name in ("query", "output") if name in script.said}
    return Work(files=files, included=frozenset(body.get("include") or ()), **told)


def _stores(body: dict[str, Any]) -> list[str]:
    tools = body.get("tools") or []
    return [store for tool in tools if tool.get("type") == "file_search" for store in tool.get("vector_store_ids", [])]


def _may_search_the_web(body: dict[str, Any]) -> bool:
    tools = [*(body.get("tools") or []), *(body.get("toolConfig") or {}).get("tools", [])]
    named = any(str(tool.get("type", "")).startswith("web_search") or "systemTool" in tool for tool in tools)
    return named or "web_search_options" in body


def _cite(marker: str, said: str) -> Cite:
    target, _, title = said.partition(" ")
    return Cite("file" if marker == "cite-file" else "web", target, title)


def _tokens(script: Script, given: Any) -> Tokens | None:
    if "no-usage" in script.said:
        return None
    if "usage" in script.said:
        return Tokens(*(int(part) for part in script.said["usage"].split(",")))
    sent = len(json.dumps(given, ensure_ascii=False).encode())
    return Tokens(math.ceil(sent / 4), math.ceil(len("".join(script.pieces()).encode()) / 4))


class ScriptedAnswer:
    """One answer as a stream, with every disturbance that the markers ask for."""

    def __init__(self, dialect: Dialect, script: Script, state: State) -> None:
        self._dialect = dialect
        self._script = script
        self._state = state
        self._pieces = script.pieces()

    async def stream(self) -> AsyncIterator[bytes]:
        """The bytes of the answer, as the markers want them."""
        self._state.open_streams += 1
        finished = False
        try:
            async for event in self._events():
                size = self._script.number("bytes", 0) or len(event)
                for start in range(0, len(event), size):
                    yield event[start : start + size]
            finished = True
        except ConnectionCut:
            finished = True
            raise
        finally:
            self._state.open_streams -= 1
            self._state.broken_off += not finished

    async def _events(self) -> AsyncIterator[bytes]:
        said = self._script.said
        for event in self._dialect.opening():
            yield event
        await asyncio.sleep(self._script.number("first-token", 0) / 1000)
        if "hold-start" in said:
            await self._held(said["hold-start"])
        async for event in self._tools():
            yield event
        for event in self._dialect.text_begins():
            yield event
        async for event in self._deltas():
            yield event
        if "end" not in said and "half" not in said:
            for event in self._last_words():
                yield event

    async def _tools(self) -> AsyncIterator[bytes]:
        for tool in self._script.tools:
            for event in self._dialect.tool_begins(tool):
                yield event
            if "hold-tool" in self._script.said:
                await self._held(self._script.said["hold-tool"])
            for event in self._dialect.tool_ends(tool):
                yield event

    async def _deltas(self) -> AsyncIterator[bytes]:
        pause = self._script.number("delay", DEFAULT_DELAY_MS) / 1000
        for number, piece in enumerate(self._pieces):
            if number:
                await asyncio.sleep(pause)
            async for event in self._incident(number):
                yield event
            event = self._dialect.delta(piece)
            if self._script.number("end", -1) == number:
                return
            if self._script.number("half", -1) == number:
                yield event[: len(event) // 2]
                return
            yield event
            if number == 0 and "hold" in self._script.said:
                await self._held(self._script.said["hold"])
        async for event in self._incident(len(self._pieces)):
            yield event

    async def _incident(self, number: int) -> AsyncIterator[bytes]:
        """What happens before the delta of this number."""
        for name, payload in _UNREADABLE.items():
            if self._script.number(name, -1) == number:
                yield self._dialect.raw(payload)
        if self._script.number("flood", -1) == number:
            yield self._dialect.raw(b"x" * FLOOD_BYTES)
        if self._script.number("unknown", -1) == number:
            yield self._dialect.unknown()
        if self._script.number("cut", -1) == number:
            raise ConnectionCut
        if self._script.number("stall", -1) == number:
            await asyncio.sleep(HOLD_SECONDS)

    def _last_words(self) -> Iterator[bytes]:
        said = self._script.said
        if "error" in said:
            return self._dialect.failed(said["error"], flat=True)
        if "failed" in said:
            return self._dialect.failed(said["failed"], flat=False)
        if "incomplete" in said:
            return self._dialect.incomplete(said["incomplete"])
        return self._dialect.completed()

    async def _held(self, name: str) -> None:
        async with asyncio.timeout(HOLD_SECONDS):
            await self._state.releases[name].wait()


def _last_text(given: Any) -> str:
    if isinstance(given, str):
        return given
    users = [message for message in given if message.get("role") == "user"]
    if not users:
        return ""
    content = users[-1].get("content", "")
    if isinstance(content, str):
        return content
    # Consecutive user messages come as one: the latest is its last text.
    texts = [part["text"] for part in content if "text" in part]
    return texts[-1] if texts else ""


def _alternates(given: Any) -> bool:
    """Whether user and assistant alternate, user first, as many models' chat templates require."""
    roles = [] if isinstance(given, str) else [message.get("role") for message in given]
    said = [role for role in roles if role not in {"system", "developer"}]
    return said == ["user", "assistant"] * (len(said) // 2) + ["user"] * (len(said) % 2)


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description="A scripted provider that speaks five providers' APIs.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(create_app(), **vars(options), log_level="error", timeout_graceful_shutdown=1, http="h11")


if __name__ == "__main__":
    main()
