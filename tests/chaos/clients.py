"""Clients that leave, come back, cancel, retry, edit and delete as they please, and remember what they were told.

What a client does depends on the seed and its number alone; when others do what they do, on the machine.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

import httpx2

REQUEST_SECONDS = 30
BUSY_SECONDS = 3
"""How long a client waits for a chat in which an answer is being made, before it goes on in another one."""
Frame = tuple[int, str, dict[str, Any]]


@dataclass
class TurnTold:
    """What was told of one turn, to whom it may have been; `complaints` is what no client should ever see."""

    chat_id: str
    request_id: str
    whole_text: str
    asked: list[tuple[str, float]]
    """At which server it was asked for, and when by the monotonic clock."""
    frames: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    readings: list["Reading"] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@dataclass
class Reading:
    """One client's way through a turn's stream, over as many connections as it takes."""

    turn: TurnTold
    last: int = 0
    text: str = ""
    end: str | None = None
    is_wrong: bool = False

    def __post_init__(self) -> None:
        self.turn.readings.append(self)

    def told(self, frame: Frame) -> None:
        """Takes an event in, and complains of what cannot be."""
        number, name, data = frame
        if self.is_wrong:  # what follows from it is no news
            return
        if complaint := self._complaint(number, name, data):
            self.is_wrong = True
            self.turn.complaints.append(complaint)
            return
        self.last = number
        if name == "delta":
            self.text += data["content"]
        if name in ("done", "error"):
            self.end = name if name == "done" else data["code"]

    def _complaint(self, number: int, name: str, data: dict[str, Any]) -> str | None:
        told = {key: value for key, value in data.items() if key not in ("is_new_turn", "quota_warnings")}
        known = self.turn.frames.setdefault(number, (name, told))
        if self.end is not None:
            return f"event {number} came after the end"
        if number <= self.last:
            return f"event {number} ({name}) was told again, after {self.last}"
        if known != (name, told):
            return f"event {number} was {str(known)[:200]} and is {str((name, told))[:200]}"
        if name == "delta" and not self.turn.whole_text.startswith(self.text + data["content"]):
            return f"{data['content'][-60:]!r} does not follow {self.text[-60:]!r}"
        return None


@dataclass
class Crowd:
    """All clients, and what they saw."""

    servers: Callable[[], list[str]]
    """Those that answer now."""
    token: Callable[[int], str]
    seed: int
    turns: Iterator[int]
    """One is taken for each answer that is asked for."""
    told: list[TurnTold] = field(default_factory=list)
    chats: dict[str, int] = field(default_factory=dict)
    """The user of each."""
    left_busy: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    async def act(self, count: int) -> None:
        """So many clients at once, until the turns are used up."""
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(timeout=REQUEST_SECONDS, trust_env=False, limits=limits) as http:
            await asyncio.gather(*(Client(self, number, http).act() for number in range(count)))


class Client:
    """One user in one chat after another."""

    def __init__(self, crowd: Crowd, number: int, http: httpx2.AsyncClient) -> None:
        self._crowd = crowd
        self._number = number
        self._http = http
        self._chance = Random(f"{crowd.seed}/client {number}")
        self._headers = {"authorization": f"Bearer {crowd.token(number)}"}
        self._chat = ""
        self._latest = ""

    async def act(self) -> None:
        """Does one thing after the other until enough was asked for."""
        while True:
            if not self._chat:
                await self._new_chat()
                continue
            deed = self._chance.choices(
                (self._send, self._retry, self._edit, self._delete_turn, self._delete_chat, self._new_chat),
                (60, 12, 12, 6, 4, 6) if self._latest else (94, 0, 0, 0, 2, 4),
            )[0]
            if deed in (self._send, self._retry, self._edit) and next(self._crowd.turns, None) is None:
                return
            await deed()

    async def _new_chat(self) -> None:
        answer = await self._ask("POST", "/chats", json={})
        self._latest = ""
        self._chat = answer["id"] if answer and "id" in answer else ""
        if self._chat:
            self._crowd.chats[self._chat] = self._number

    async def _send(self) -> None:
        content, text = self._script()
        body = {"content": content, "request_id": str(uuid4())}
        await self._answered("POST", f"/chats/{self._chat}/messages:stream", text, body, body["request_id"])

    async def _retry(self) -> None:
        told = next((turn for turn in self._crowd.told if turn.request_id == self._latest), None)
        if told is not None:
            await self._answered("POST", self._turn("retry"), told.whole_text, None, None)

    async def _edit(self) -> None:
        content, text = self._script()
        await self._answered("PATCH", f"/chats/{self._chat}/turns/{self._latest}", text, {"content": content}, None)

    async def _delete_turn(self) -> None:
        await self._ask("DELETE", f"/chats/{self._chat}/turns/{self._latest}")
        self._latest = ""

    async def _delete_chat(self) -> None:
        await self._ask("DELETE", f"/chats/{self._chat}")
        self._chat = self._latest = ""

    def _script(self) -> tuple[str, str]:
        """What is sent, and what is answered when all goes well; no two answers begin alike."""
        mark = f"{self._chance.getrandbits(40):x}"
        words = " ".join(f"{mark}-{number}" for number in range(1, self._chance.randint(1, 30) + 1))
        how = self._chance.choices(("[[delay:5]]", "[[delay:120]]", "[[failed:server_error]]"), (60, 30, 10))[0]
        return f"[[say:{words}]]{how}", words

    async def _answered(
        self, method: str, path: str, text: str, body: dict[str, Any] | None, request_id: str | None
    ) -> None:
        """Asks for an answer, reads as much of it as this client likes, and perhaps comes back for the rest."""
        server = await self._server()
        asked = [(server, time.monotonic())]
        reading: Reading | None = None
        leaves_after = self._chance.choice((None, None, None, 0, 1, 3, 10))
        cancels_after = self._chance.choice((None,) * 6 + (1, 4))
        async with self._stream(server, method, path, json=body) as (problem, frames):
            if problem is not None and problem.get("code") in ("not_latest_turn", "turn_not_found", "chat_not_found"):
                self._latest = ""
            async for frame in frames:
                if reading is None:
                    request_id = str(frame[2]["request_id"])
                    reading = self._told(TurnTold(self._chat, request_id, text, asked))
                reading.told(frame)
                if reading.last == cancels_after:
                    await self._ask("POST", f"/chats/{self._chat}/turns/{request_id}/cancel")
                if reading.last == leaves_after:
                    break
        if reading is None and body and "request_id" in body:
            reading = self._told(TurnTold(self._chat, body["request_id"], text, asked))
        if reading is not None:
            self._latest = reading.turn.request_id
            await self._comes_back(reading, method, path, body)
        if request_id is None:  # nobody told which turn it has become
            self._latest = ""
        await self._goes_on_elsewhere_if_busy()

    async def _comes_back(self, reading: Reading, method: str, path: str, body: dict[str, Any] | None) -> None:
        """Reads on where it was cut or left: by the stream's own URL, or by asking again, as browsers' libraries do."""
        resumes = f"/chats/{self._chat}/turns/{reading.turn.request_id}/stream"
        if self._chance.random() < 0.2:
            reading = Reading(reading.turn)  # another tab, which begins at the beginning
        for _ in range(self._chance.randint(0, 3)):
            if reading.end is not None:
                return
            again = body is not None and "request_id" in body and self._chance.random() < 0.4
            how = {"method": method, "path": path, "json": body} if again else {"method": "GET", "path": resumes}
            headers = {"last-event-id": str(reading.last)} if reading.last else {}
            server, began = await self._server(), time.monotonic()
            if again:
                reading.turn.asked.append((server, began))
            async with self._stream(server, **how, headers=headers) as (_, frames):
                async for frame in frames:
                    reading.told(frame)
                    if time.monotonic() - began > BUSY_SECONDS:
                        break

    async def _goes_on_elsewhere_if_busy(self) -> None:
        """A chat whose turn does not end is left, for now."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            chat = await self._ask("GET", f"/chats/{self._chat}")
            if chat is not None and "running_request_id" not in chat:
                return
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        if chat is not None:
            self._crowd.left_busy.add(self._chat)
        self._chat = self._latest = ""

    async def _server(self) -> str:
        while True:
            if up := self._crowd.servers():
                return self._chance.choice(up)
            await asyncio.sleep(0.1)

    def _turn(self, deed: str) -> str:
        return f"/chats/{self._chat}/turns/{self._latest}/{deed}"

    def _told(self, turn: TurnTold) -> Reading:
        self._crowd.told.append(turn)
        return Reading(turn)

    async def _ask(self, method: str, path: str, **how: Any) -> dict[str, Any] | None:
        """The body of an answer of 2xx; None for a refusal, and when no answer came."""
        url = await self._server() + path
        try:
            answer = await self._http.request(method, url, headers=self._headers, **how)
        except httpx2.TransportError:
            self._crowd.statuses[f"{method} cut"] += 1
            return None
        self._count(method, answer.status_code, answer.content)
        return (answer.json() if answer.content else {}) if answer.is_success else None

    @asynccontextmanager
    async def _stream(
        self, server: str, method: str, path: str, headers: dict[str, str] | None = None, **how: Any
    ) -> AsyncIterator[tuple[dict[str, Any] | None, AsyncIterator[Frame]]]:
        """A stream's events, or the problem that came instead; a connection that breaks ends them."""
        try:
            async with self._http.stream(
                method, server + path, headers={**self._headers, **(headers or {})}, **how
            ) as answer:
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    self._count(method, answer.status_code, b"")
                    yield None, _frames(answer)
                else:
                    content = await answer.aread()
                    self._count(method, answer.status_code, content)
                    yield json.loads(content) if content else {}, _nothing()
                return
        except httpx2.TransportError:
            self._crowd.statuses[f"{method} cut"] += 1
        yield {"code": "cut"}, _nothing()

    def _count(self, method: str, status: int, content: bytes) -> None:
        code = ""
        if status >= 400:
            code = " " + json.loads(content).get("code", "?")
        self._crowd.statuses[f"{method} {status}{code}"] += 1
        if status >= 500 and status != 503:
            self._crowd.complaints.append(f"{method} was answered {status}: {content[:300]!r}")


async def _frames(answer: httpx2.Response) -> AsyncIterator[Frame]:
    buffer = b""
    try:
        async for data in answer.aiter_raw():
            buffer += data
            while b"\n\n" in buffer:
                frame, buffer = buffer.split(b"\n\n", 1)
                lines = dict(line.split(": ", 1) for line in frame.decode().split("\n"))
                if "id" in lines:  # a ping has none
                    yield int(lines["id"]), lines["event"], json.loads(lines["data"])
    except httpx2.TransportError:
        return


async def _nothing() -> AsyncIterator[Frame]:
    return
    yield
