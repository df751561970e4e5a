"""Requests that a client library repeats as they were when their stream was cut: the whole text once, one turn."""

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from minichat.settings import Store
from tests.conftest import ROOT, another_server
from tests.support.http.client import Stack, User
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations

SCRIPT = "[[say:Größe, 数 and 🙂: every word counts, twice.]][[tool:web_search]][[delay:5]]"
WORDS = [f"word{number} " for number in range(1, 12)] + ["word12"]
CLIENTS = ROOT / "tests" / "clients"


@pytest.fixture(scope="module")
def second(stack: Stack) -> Iterator[another_server]:
    """Another instance of the same deployment."""
    with another_server(stack) as server:
        yield server


def send_path(chat_id: str) -> str:
    return f"/chats/{chat_id}/messages:stream"


def frames_of(user: User, path: str, body: dict[str, Any], *, after: int | None = None) -> list[bytes]:
    method = "PATCH" if path.endswith("?edit") else "POST"
    with user.frames(path.removesuffix("?edit"), after=after, method=method, json=body) as frames:
        return list(frames)


def text_of(frames: list[bytes]) -> str:
    named = [frame.decode().split("\n")[-4:-2] for frame in frames]
    return "".join(json.loads(data.removeprefix("data: "))["content"] for name, data in named if name == "event: delta")


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.holds("contract.repeated")
def test_a_send_that_is_repeated_after_any_event_is_told_the_rest(
    stack: Stack, second: another_server, *, is_named: bool
) -> None:
    name = uuid4().hex
    with stack.user("acme", name) as user, second.user("acme", name) as elsewhere:
        chat_id = user.new_chat()
        body = {"content": SCRIPT, "web_search": {"enabled": True}} | ({"request_id": str(uuid4())} if is_named else {})
        uncut = frames_of(user, send_path(chat_id), body)
        assert len(uncut) >= 12
        for cut in range(1, len(uncut) + 1):
            assert frames_of(elsewhere, send_path(chat_id), body, after=cut) == uncut[cut:]
        assert user.chat(chat_id)["message_count"] == 2


@pytest.mark.holds("contract.replay-cut")
def test_a_replay_that_is_cut_anywhere_is_resumed_by_either_request(user: User) -> None:
    chat_id, request_id = user.new_chat(), str(uuid4())
    body = {"content": SCRIPT, "request_id": request_id, "web_search": {"enabled": True}}
    uncut = frames_of(user, send_path(chat_id), body)
    replay = frames_of(user, send_path(chat_id), body)
    assert text_of(replay) == text_of(uncut)
    assert [frame.split(b"\n")[0] for frame in replay] == [frame.split(b"\n")[0] for frame in uncut]
    assert b'"is_new_turn":false' in replay[0]
    assert b"quota_warnings" not in replay[-1]
    for cut in range(1, len(replay)):
        with user.frames(f"/chats/{chat_id}/turns/{request_id}/stream", after=cut) as frames:
            assert text_of(replay[:cut] + list(frames)) == text_of(uncut)
        assert text_of(replay[:cut] + frames_of(user, send_path(chat_id), body, after=cut)) == text_of(uncut)


@pytest.mark.parametrize("is_named", [True, False])
def test_a_send_that_is_repeated_while_its_turn_runs_joins_it(
    stack: Stack, second: another_server, *, is_named: bool
) -> None:
    def cut_and_repeated(cut: int) -> None:
        name = uuid4().hex
        with stack.user("acme", name) as user, second.user("acme", name) as elsewhere:
            chat_id = user.new_chat()
            body = {"content": "[[words:12]][[delay:150]]"} | ({"request_id": str(uuid4())} if is_named else {})
            with user.frames(send_path(chat_id), method="POST", json=body) as frames:
                before = list(itertools.islice(frames, cut))
            after = frames_of(elsewhere, send_path(chat_id), body, after=cut)
            assert text_of(before + after) == "".join(WORDS)
            assert after[-1].split(b"\n")[1] == b"event: done"
            assert [message["content"] for message in user.messages(chat_id)][1:] == ["".join(WORDS)]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(cut_and_repeated, range(1, 14, 2)))


@pytest.mark.parametrize("is_edit", [False, True])
@pytest.mark.holds("contract.repeated-mutation")
def test_a_mutation_that_is_repeated_is_told_the_rest_of_what_it_made(user: User, *, is_edit: bool) -> None:
    chat_id = user.new_chat()
    old = user.send(chat_id, "[[words:3]][[delay:5]]").request_id
    body = {"content": "[[words:12]][[delay:5]]"} if is_edit else {}
    path = f"/chats/{chat_id}/turns/{old}" + ("?edit" if is_edit else "/retry")
    uncut = frames_of(user, path, body)
    for cut in range(1, len(uncut) + 1):
        assert frames_of(user, path, body, after=cut) == uncut[cut:]
    assert user.chat(chat_id)["message_count"] == 2
    # Another wish than the one that was granted is a mutation like any other: of a turn that is not the latest.
    other = (
        ("POST", f"/chats/{chat_id}/turns/{old}/retry", {})
        if is_edit
        else ("PATCH", path[: -len("/retry")], {"content": "x"})
    )
    refused = user.http.request(other[0], other[1], json=other[2], headers={"last-event-id": "2"})
    assert (refused.status_code, refused.json()["code"]) == (409, "not_latest_turn")


def test_a_failed_turn_is_told_to_its_error(user: User) -> None:
    chat_id, request_id = user.new_chat(), str(uuid4())
    body = {"content": "[[words:2]][[failed:server_error]]", "request_id": request_id}
    uncut = frames_of(user, send_path(chat_id), body)
    assert frames_of(user, send_path(chat_id), body, after=2) == uncut[2:]
    assert user.stream("POST", send_path(chat_id), json=body).problem["code"] == "request_id_conflict"


@pytest.mark.holds("contract.repeated-none")
def test_a_position_without_its_turn_makes_none(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    ahead = {"last-event-id": "5"}

    def refused(**body: Any) -> tuple[str, list[str]]:
        problem = user.stream("POST", send_path(chat_id), json=body, headers=ahead).problem
        return problem["code"], [error["field"] for error in problem.get("errors", ())]

    # Without a request id it names no turn; and a new one would be paid for, without anybody having asked for it.
    assert refused(content="hello") == ("invalid_request", ["Last-Event-ID"])
    first = user.send(chat_id, "hello")
    assert refused(content="another") == ("invalid_request", ["Last-Event-ID"])
    assert refused(content="another", request_id=first.request_id) == ("request_id_reused", [])
    assert refused(content="hello", request_id=first.request_id, attachment_ids=[str(uuid4())]) == (
        "request_id_reused",
        [],
    )
    garbage = user.http.post(send_path(chat_id), json={"content": "hello"}, headers={"last-event-id": "x"})
    assert (garbage.status_code, garbage.json()["code"]) == (400, "invalid_request")
    beyond = user.stream("POST", send_path(chat_id), json={"content": "hello"}, headers={"last-event-id": "99"})
    assert beyond.problem["errors"][0]["code"] == "too_large"
    with stack.user() as stranger:
        assert stranger.stream("POST", send_path(chat_id), json={"content": "hello"}, headers=ahead).status == 404
    assert user.chat(chat_id)["message_count"] == 2
    # With a request id that is new the turn is: its client has nothing of it yet.
    answer = user.stream("POST", send_path(chat_id), json={"content": "x", "request_id": str(uuid4())}, headers=ahead)
    assert (answer.status, answer.names[0], answer.names[-1]) == (200, "stream_started", "done")
    deleted = answer.request_id
    assert user.delete(chat_id, deleted).status_code == 204
    assert refused(content="x", request_id=deleted) == ("request_id_conflict", [])
    assert violations(Tables.of(Store(endpoint=stack.about["engine_url"]))) == []


@pytest.mark.holds("contract.repeated-all")
def test_a_client_that_has_everything_is_told_nothing_more(user: User) -> None:
    """As a stream, and not as a 204: a library that repeats its request takes what is no stream for a failure."""
    chat_id = user.new_chat()
    last = user.send(chat_id, "hello").events[-1].id
    over = user.http.post(send_path(chat_id), json={"content": "hello"}, headers={"last-event-id": str(last)})
    assert (over.status_code, over.content) == (200, b"")
    assert over.headers["content-type"].startswith("text/event-stream")


class Page:
    """What a page does with @microsoft/fetch-event-source: the same POST again, with the id of the last event."""

    def __init__(self, user: User, chat_id: str, body: dict[str, Any]) -> None:
        self._user, self._path, self._body = user, send_path(chat_id), body
        self._last_id: int | None = None
        self.opened: list[int] = []
        self.text = ""

    def reads(self, events: int | None = None) -> bool:
        """Reads so many events, then the tab is hidden; True when the stream has ended before."""
        headers = {} if self._last_id is None else {"last-event-id": str(self._last_id)}
        with self._user.streaming("POST", self._path, json=self._body, headers=headers) as (answer, stream):
            self.opened.append(answer.status)
            if answer.status != 200:
                return False
            for number, event in enumerate(stream, start=1):
                self._last_id = event.id or self._last_id
                self.text += event.data["content"] if event.name == "delta" else ""
                if number == events:
                    return False
        return True


@pytest.mark.parametrize("is_over", [False, True], ids=["while it runs", "after its end"])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_page_that_comes_back_shows_the_whole_text_once(user: User, *, is_named: bool, is_over: bool) -> None:
    chat_id = user.new_chat()
    body = {"content": "[[words:60]][[delay:40]]"} | ({"request_id": str(uuid4())} if is_named else {})
    page = Page(user, chat_id, body)
    assert not page.reads(20)
    while is_over and "running_request_id" in user.chat(chat_id):
        time.sleep(0.05)
    assert page.reads()
    assert page.opened == [200, 200]
    assert page.text == " ".join(f"word{number}" for number in range(1, 61))
    assert [message["content"] for message in user.messages(chat_id)][1:] == [page.text]


@pytest.mark.parametrize("milliseconds", [500, 4000], ids=["while it runs", "after its end"])
@pytest.mark.parametrize("is_named", [True, False])
def test_fetch_event_source_shows_the_whole_text_once(
    stack: Stack, modules: Path, *, is_named: bool, milliseconds: int
) -> None:
    name = uuid4().hex
    with stack.user("acme", name) as user:
        chat_id = user.new_chat()
        body = {"content": "[[words:60]][[delay:40]]"} | ({"request_id": str(uuid4())} if is_named else {})
        url = f"{stack.base_url}{send_path(chat_id)}"
        arguments = [str(modules), url, stack.token("acme", name), json.dumps(body), "20", str(milliseconds)]
        page = subprocess.run(
            ["node", CLIENTS / "hidden_tab.mjs", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        told = json.loads(page.stdout)
        text = "".join(data["content"] for _, event, data in told["events"] if event == "delta")
        assert told["opened"] == [200, 200]
        assert [number for number, _, _ in told["events"]] == list(range(1, 63))
        assert [message["content"] for message in user.messages(chat_id)][1:] == [text]
        assert text == " ".join(f"word{number}" for number in range(1, 61))
