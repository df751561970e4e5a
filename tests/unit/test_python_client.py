"""The Python client's parts that do no I/O, and its manners towards a server that says not now."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minichat_client import (
    AsyncMiniChat,
    DoneEvent,
    MiniChat,
    NotMiniChat,
    Refused,
    UnknownEvent,
    Unreachable,
    problems,
)
from minichat_client._following import event_of
from minichat_client._sse import Frame, FrameParser
from tests.reference import client
from tests.reference.problems import refusals

ROOT = Path(__file__).parents[2]
CHAT = {
    "id": "c1",
    "model": "m",
    "message_count": 0,
    "created_at": "2026-11-21T03:44:15.763843Z",
    "updated_at": "2026-11-21T03:44:15Z",
    "a_member_of_a_newer_server": 1,
}
DONE = {
    "completion_signal": {"kind": "complete"},
    "usage": None,
    "effective_model": "m",
    "selected_model": "m",
    "quota_decision": "allow",
}
STREAM = "event: {}\nid: {}\ndata: {}\n\n"


class Heard(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Said(NamedTuple):
    """A response to give."""

    status: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


def problem(status: int, code: str, **more: Any) -> Said:
    """A refusal."""
    return Said(status, {"code": code, "title": code, "detail": "No.", "status": status, **more})


def told(*events: tuple[str, int, Any]) -> Said:
    """A stream."""
    text = "".join(STREAM.format(name, number, json.dumps(data)) for name, number, data in events)
    return Said(200, text, (("content-type", "text/event-stream"),))


@contextmanager
def a_server(*answers: Said) -> Iterator[tuple[str, list[Heard]]]:
    """Gives these answers one after another, the last one for ever; where it is, and what it hears."""
    heard: list[Heard] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            heard.append(Heard(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            said = left.pop(0) if len(left) > 1 else left[0]
            text = said.body if isinstance(said.body, str) else json.dumps(said.body)
            self.send_response(said.status)
            for name, value in said.headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = answer

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_is_the_same_wherever_it_is_cut_into_chunks(end: bytes) -> None:
    delta = 'id: 1\nevent: delta\ndata: {"a":"Größe \u2028\x85 🙂"}\n\n'
    text = f"{delta}: kept alive\n\nevent: ping\ndata: {{}}\n\nid: 2\ndata: a\ndata: b\n\n"
    stream = text.encode().replace(b"\n", end)
    whole = [Frame("delta", '{"a":"Größe \u2028\x85 🙂"}', 1), Frame("ping", "{}", 0), Frame("message", "a\nb", 2)]
    for cut in range(len(stream) + 1):
        parser = FrameParser()
        # Another byte ends what a lone CR leaves open.
        found = [*parser.feed(stream[:cut]), *parser.feed(stream[cut:]), *parser.feed(b":")]
        assert found == whole
    parser = FrameParser()
    assert [frame for byte in [*stream, 0x3A] for frame in parser.feed(bytes([byte]))] == whole


# FastAPI hands a query's alias on to pydantic in a place where pydantic says that it does nothing there.
@pytest.mark.filterwarnings("ignore:The 'alias' attribute with value")
@pytest.mark.parametrize("name", client.MODULES)
def test_a_module_that_is_made_from_the_document_is_as_the_document_says(name: str) -> None:
    assert (ROOT / client.FOLDER / name).read_text(encoding="utf-8") == client.modules()[name], "stale: run `make docs`"


def test_every_code_has_an_exception_of_its_own() -> None:
    assert {code: kind.code for code, kind in problems.BY_CODE.items()} == {code: code for code in refusals()}
    assert len(set(problems.BY_CODE.values())) == len(problems.BY_CODE)


def test_what_a_newer_server_says_is_no_error() -> None:
    assert event_of(Frame("surprise", '{"a": 1}', 7)) == UnknownEvent(number=7, name="surprise", data={"a": 1})
    done = event_of(Frame("done", json.dumps(DONE | {"more": 1}), 8))
    assert isinstance(done, DoneEvent)
    with a_server(Said(200, CHAT)) as (url, _), MiniChat(url) as chat:
        assert chat.chat("c1").created_at == datetime(2026, 11, 21, 3, 44, 15, 763843, tzinfo=UTC)


def test_what_is_not_mini_chat_is_named() -> None:
    page = Said(200, "<html>Sign in</html>", (("content-type", "text/html"),))
    with a_server(page) as (url, _), MiniChat(url, attempts=0) as chat:
        with pytest.raises(NotMiniChat):
            chat.chat("c1")
        with pytest.raises(NotMiniChat):
            chat.send("c1", "hello").read()
    with (
        a_server(Said(200, {"id": 1})) as (url, _),
        MiniChat(url) as chat,
        pytest.raises(NotMiniChat, match="no model"),
    ):
        chat.chat("c1")


@pytest.mark.parametrize("wait", [{"retry-after": "0"}, {"retry-after": "Fri, 27 Nov 2020 15:00:00 GMT"}, {}])
def test_who_is_asked_to_wait_waits_and_repeats_what_may_be_repeated(wait: dict[str, str]) -> None:
    later = problem(429, "rate_limited")._replace(headers=tuple(wait.items()))
    with a_server(later, problem(503, "service_unavailable"), Said(200, CHAT)) as (url, heard), MiniChat(url) as chat:
        assert chat.create_chat(title="T").id == "c1"
        keys = {one.headers["idempotency-key"] for one in heard}
    assert (len(heard), len(keys)) == (3, 1)
    with a_server(later, Said(200, {})) as (url, heard), MiniChat(url) as chat, pytest.raises(problems.RateLimited):
        chat.call("POST", "dead_letters", "usage", "redrive")
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (problem(429, "quota_exceeded", retry_after_seconds=1), problems.QuotaExceeded),
        (problem(429, "rate_limited", retry_after_seconds=3600), problems.RateLimited),
        (problem(404, "chat_not_found"), problems.ChatNotFound),
        (problem(409, "generation_in_progress"), problems.GenerationInProgress),
        (Said(403, "Forbidden"), Refused),
    ],
)
def test_what_waiting_does_not_help_is_told_at_once(refused: Said, kind: type[Refused]) -> None:
    with a_server(refused) as (url, heard), MiniChat(url) as chat:
        with pytest.raises(kind) as error:
            chat.send("c1", "hello").read()
        assert type(error.value) is kind
        with pytest.raises(kind):
            chat.chat("c1")
    assert len(heard) == 2
    assert error.value.retry_after == (
        refused.body.get("retry_after_seconds") if isinstance(refused.body, dict) else None
    )


def test_a_moment_to_come_back_is_as_good_as_seconds() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    refused = problem(503, "service_unavailable")._replace(headers=(("retry-after", moment),))
    with a_server(refused) as (url, _), MiniChat(url) as chat, pytest.raises(problems.ServiceUnavailable) as error:
        chat.chat("c1")
    assert 3000 < (error.value.retry_after or 0) <= 3600


def test_a_token_is_asked_for_anew_when_it_is_refused() -> None:
    refused, tokens = problem(401, "unauthenticated"), iter("abcdef")
    with a_server(Said(200, CHAT), refused, Said(200, CHAT), refused, refused) as (url, heard):
        with MiniChat(url, lambda: next(tokens)) as chat:
            chat.chat("c1")
            chat.chat("c1")
            with pytest.raises(problems.Unauthenticated):
                chat.chat("c1")
        assert [one.headers["authorization"][-1] for one in heard] == ["a", "a", "b", "b", "c"]
    with a_server(refused) as (url, heard), MiniChat(url, "fixed") as chat, pytest.raises(problems.Unauthenticated):
        chat.send("c1", "hello").read()
    assert len(heard) == 1


def test_an_asynchronous_client_may_have_an_asynchronous_token() -> None:
    async def token() -> str:
        await asyncio.sleep(0)
        return "a"

    async def asked() -> None:
        async with AsyncMiniChat(url, token) as chat:
            assert (await chat.chat("c1")).model == "m"

    with a_server(Said(200, CHAT)) as (url, heard):
        asyncio.run(asked())
        with MiniChat(url, token) as chat, pytest.raises(RuntimeError, match="AsyncMiniChat"):  # type: ignore[arg-type]
            chat.chat("c1")
    assert heard[0].headers["authorization"] == "Bearer a"


def test_an_unnamed_send_is_named_once_and_repeated_with_its_position() -> None:
    started = ("stream_started", 1, {"request_id": "r", "message_id": "m", "is_new_turn": True})
    delta = ("delta", 2, {"type": "text", "content": "Hi"})
    answers = [problem(503, "service_unavailable"), told(started), told(started, delta), told(delta, ("done", 3, DONE))]
    lost: list[str] = []
    with (
        a_server(*answers) as (url, heard),
        MiniChat(url, on_reconnect=lambda why: lost.append(str(why))) as chat,
    ):
        answer = chat.send("c1", "hello")
        assert [event.number for event in answer] == [1, 2, 3]
    assert answer.text == "Hi"
    assert [one.headers.get("last-event-id") for one in heard] == [None, "0", "1", "2"]
    assert [one.method for one in heard] == ["POST", "POST", "GET", "GET"]
    assert heard[0].body == heard[1].body
    assert heard[2].path == "/chats/c1/turns/r/stream"
    assert len(lost) == 3


@pytest.mark.parametrize("begin", [lambda chat: chat.send("c1", "hi"), lambda chat: chat.resume("c1", "r", after=3)])
def test_a_server_that_stays_away_is_given_up(begin: Callable[[MiniChat], Any]) -> None:
    with a_server(Said(200, {})) as (url, _):
        pass
    with MiniChat(url, attempts=1) as chat, pytest.raises(Unreachable, match="Given up after 1 attempts"):
        begin(chat).read()
