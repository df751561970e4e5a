"""A client of the API as a user's program would be: real HTTP over a socket, server-sent events as they arrive."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from minichat.local.issuer import Issuer, as_uuid
from tests.support.patience import PATIENCE

TIMEOUT = httpx2.Timeout(PATIENCE)


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    data: dict[str, Any]
    id: int | None


@dataclass
class Answer:
    """A streamed answer, or the problem that came instead."""

    status: int
    events: list[Event] = field(default_factory=list)
    problem: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the events, each run of deltas once, pings left out."""
        found: list[str] = []
        for event in self.events:
            if event.name != "ping" and not (event.name == "delta" and found[-1:] == ["delta"]):
                found.append(event.name)
        return found

    @property
    def text(self) -> str:
        """All deltas, joined."""
        return "".join(event.data["content"] for event in self.events if event.name == "delta")

    @property
    def request_id(self) -> str:
        """The turn's request id."""
        return str(self.events[0].data["request_id"])


class User:
    """One user's connection to the API."""

    def __init__(self, base_url: str, token: str | None) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
        self.http = httpx2.Client(base_url=base_url, headers=headers, timeout=TIMEOUT, limits=limits, trust_env=False)

    def __enter__(self) -> "User":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def new_chat(self, **body: Any) -> str:
        """The id of a new chat."""
        answer = self.http.post("/chats", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def send(self, chat_id: str, content: str, **body: Any) -> Answer:
        """Sends a message and reads its stream to the end."""
        return self.stream("POST", f"/chats/{chat_id}/messages:stream", json={"content": content, **body})

    def retry(self, chat_id: str, request_id: str) -> Answer:
        """Retries a turn and reads its stream to the end."""
        return self.stream("POST", f"/chats/{chat_id}/turns/{request_id}/retry")

    def edit(self, chat_id: str, request_id: str, content: str) -> Answer:
        """Edits a turn and reads its stream to the end."""
        return self.stream("PATCH", f"/chats/{chat_id}/turns/{request_id}", json={"content": content})

    def cancel(self, chat_id: str, request_id: str) -> httpx2.Response:
        """Asks a turn to stop."""
        return self.http.post(f"/chats/{chat_id}/turns/{request_id}/cancel")

    def resume(self, chat_id: str, request_id: str, after: int | None = None) -> Answer:
        """Reads a turn's stream after an event to its end."""
        headers = {} if after is None else {"last-event-id": str(after)}
        return self.stream("GET", f"/chats/{chat_id}/turns/{request_id}/stream", headers=headers)

    def delete(self, chat_id: str, request_id: str) -> httpx2.Response:
        """Deletes a turn."""
        return self.http.delete(f"/chats/{chat_id}/turns/{request_id}")

    def turn(self, chat_id: str, request_id: str) -> httpx2.Response:
        """A turn's status."""
        return self.http.get(f"/chats/{chat_id}/turns/{request_id}")

    def chat(self, chat_id: str) -> dict[str, Any]:
        """A chat."""
        answer = self.http.get(f"/chats/{chat_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def messages(self, chat_id: str, **params: Any) -> list[dict[str, Any]]:
        """One page of messages."""
        answer = self.http.get(f"/chats/{chat_id}/messages", params={"limit": 100, **params})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])

    def stream(self, method: str, path: str, **kwargs: Any) -> Answer:
        """Reads a whole stream, or the problem that came instead."""
        with self.streaming(method, path, **kwargs) as (answer, events):
            answer.events.extend(events)
        return answer

    @contextmanager
    def frames(
        self, path: str, *, after: int | None = None, method: str = "GET", **kwargs: Any
    ) -> Iterator[Iterator[bytes]]:
        """The frames of a stream as raw bytes, pings left out; leaving the block closes the connection."""
        headers = {} if after is None else {"last-event-id": str(after)}
        with self.http.stream(method, path, headers=headers, **kwargs) as response:
            assert response.status_code == 200, response.read()
            yield (frame for frame in _frames(response) if not frame.startswith(b"event: ping"))

    @contextmanager
    def streaming(self, method: str, path: str, **kwargs: Any) -> Iterator[tuple[Answer, Iterator[Event]]]:
        """An open stream, event by event; leaving the block closes the connection."""
        with self.http.stream(method, path, **kwargs) as response:
            answer = Answer(response.status_code)
            if response.headers["content-type"].startswith("text/event-stream"):
                yield answer, _events(response)
            else:
                answer.problem = json.loads(response.read())
                yield answer, iter(())


def _frames(response: httpx2.Response) -> Iterator[bytes]:
    buffer = b""
    for data in response.iter_raw():
        buffer += data
        while b"\n\n" in buffer:
            frame, buffer = buffer.split(b"\n\n", 1)
            yield frame + b"\n\n"


def _events(response: httpx2.Response) -> Iterator[Event]:
    name, number = "", None
    # Frames are single-line; only LF ends a line here, and JSON may carry U+2028 raw.
    buffer = ""
    for text in response.iter_text():
        buffer += text
        while "\n" in buffer:
            line, buffer = buffer.split("\n", 1)
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "id":
                number = int(value)
            elif key == "data":
                yield Event(name, json.loads(value), number)
                number = None


@dataclass
class Stack:
    """A running local stack."""

    about: dict[str, Any]
    state: Path

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return str(self.about["base_url"])

    @property
    def operators_url(self) -> str:
        """Where the operator's API is."""
        return self.base_url.replace("/mini-chat/v1", "/mini-chat/admin/v1")

    def token(
        self,
        tenant: str = "acme",
        user: str = "ann",
        lifetime: timedelta = timedelta(hours=1),
        roles: Sequence[str] = (),
    ) -> str:
        """A token of the stack's own issuer."""
        return Issuer(self.state).token(tenant, user, now=datetime.now(UTC), lifetime=lifetime, roles=roles)

    def operating(self, tenant: str, *roles: str) -> httpx2.Client:
        """The operator's API, for somebody of a tenant with these roles, who is nobody else."""
        headers = {"authorization": f"Bearer {self.token(tenant, uuid4().hex, roles=roles)}"}
        return httpx2.Client(base_url=self.operators_url, headers=headers, timeout=PATIENCE, trust_env=False)

    def ids(self, tenant: str, user: str) -> tuple[str, str]:
        """The ids that such a token has."""
        return as_uuid(tenant), as_uuid(user)

    def user(self, tenant: str = "acme", user: str | None = None) -> User:
        """A user with a client of their own; without a name, one that no other test is."""
        return User(self.base_url, self.token(tenant, user or uuid4().hex))

    def release(self, name: str) -> None:
        """Lets a held answer of the scripted provider go on."""
        httpx2.post(f"{self.about['provider_url']}/control/release/{name}", trust_env=False).raise_for_status()

    def provider_stats(self) -> dict[str, int]:
        """What the scripted provider has seen."""
        return dict(httpx2.get(f"{self.about['provider_url']}/control/stats", trust_env=False).json())


@dataclass
class StartedStack(Stack):
    """A local stack that the test has started itself: its process, and what it said until it was ready."""

    process: subprocess.Popen[str]
    said: str
