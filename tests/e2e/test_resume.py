"""Resume: any stream, after any event, from any instance, byte for byte."""

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from minichat.settings import Store
from tests.conftest import another_server, running_stack
from tests.support.http.client import Stack, User
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations

SCRIPT = "[[say:Größe, 数 and 🙂: every word counts, twice.]][[tool:web_search]][[delay:5]]"


@pytest.fixture(scope="module")
def second(stack: Stack) -> Iterator[another_server]:
    """Another instance of the same deployment."""
    with another_server(stack) as server:
        yield server


def _path(chat_id: str, request_id: str) -> str:
    return f"/chats/{chat_id}/turns/{request_id}/stream"


def _sent(user: User, chat_id: str, content: str, request_id: str) -> list[bytes]:
    """Every frame of an uncut stream."""
    body = {"content": content, "request_id": request_id, "web_search": {"enabled": True}}
    with user.frames(f"/chats/{chat_id}/messages:stream", method="POST", json=body) as frames:
        return list(frames)


@pytest.mark.holds("contract.resume", "contract.resume-204")
def test_a_stream_cut_anywhere_and_resumed_elsewhere_is_the_uncut_stream(stack: Stack, second: another_server) -> None:
    name, request_id = uuid4().hex, str(uuid4())
    with stack.user("acme", name) as user, second.user("acme", name) as elsewhere:
        chat_id = user.new_chat()
        uncut = _sent(user, chat_id, SCRIPT, request_id)
        assert len(uncut) >= 12
        assert b"event: tool" in b"".join(uncut)
        assert b"event: citations" in uncut[-2]
        for cut in range(len(uncut)):
            with elsewhere.frames(_path(chat_id, request_id), after=cut) as frames:
                assert uncut[:cut] + list(frames) == uncut
        over = elsewhere.http.get(_path(chat_id, request_id), headers={"last-event-id": str(len(uncut))})
        assert (over.status_code, over.content) == (204, b"")
        with elsewhere.frames(f"{_path(chat_id, request_id)}?after=3") as frames:
            assert list(frames) == uncut[3:]


@pytest.mark.holds("contract.resume")
def test_a_running_stream_cut_anywhere_is_followed_elsewhere_to_its_end(stack: Stack, second: another_server) -> None:
    def cut_and_followed(cut: int) -> None:
        name, request_id = uuid4().hex, str(uuid4())
        with stack.user("acme", name) as user, second.user("acme", name) as elsewhere:
            chat_id = user.new_chat()
            body = {"content": "[[words:12]][[delay:150]]", "request_id": request_id}
            with user.frames(f"/chats/{chat_id}/messages:stream", method="POST", json=body) as frames:
                before = list(itertools.islice(frames, cut))
            with elsewhere.frames(_path(chat_id, request_id), after=cut) as frames:
                after = list(frames)
            with elsewhere.frames(_path(chat_id, request_id)) as frames:
                assert before + after == list(frames)
            assert (len(before), after[-1].split(b"\n")[1]) == (cut, b"event: done")
            assert user.messages(chat_id)[1]["content"] == " ".join(f"word{n}" for n in range(1, 13))

    with ThreadPoolExecutor(7) as pool:
        list(pool.map(cut_and_followed, range(1, 14)))


def test_two_clients_follow_one_turn(stack: Stack, second: another_server) -> None:
    name, hold, request_id = uuid4().hex, uuid4().hex, str(uuid4())
    with stack.user("acme", name) as user, second.user("acme", name) as elsewhere:
        chat_id = user.new_chat()
        body = {"content": f"[[words:3]][[hold:{hold}]]", "request_id": request_id}
        with user.frames(f"/chats/{chat_id}/messages:stream", method="POST", json=body) as frames:
            first = list(itertools.islice(frames, 2))
            busy = elsewhere.send(chat_id, "another")
            assert busy.problem["code"] == "generation_in_progress"
            assert busy.problem["stream_url"] == f"/mini-chat/v1{_path(chat_id, request_id)}"
            again = elsewhere.send(chat_id, "the same", request_id=request_id)
            assert (again.problem["code"], again.problem["turn_state"]) == ("request_id_conflict", "running")
            assert again.problem["stream_url"] == busy.problem["stream_url"]
            with elsewhere.frames(_path(chat_id, request_id)) as followed:
                assert list(itertools.islice(followed, 2)) == first
                stack.release(hold)
                assert first + list(frames) == first + list(followed)


@pytest.mark.parametrize(
    ("after", "field"),
    [("-1", "last-event-id"), ("one", "last-event-id"), ("1.5", "last-event-id"), ("99", "Last-Event-ID")],
)
def test_a_position_that_cannot_be_is_refused(user: User, after: str, field: str) -> None:
    chat_id = user.new_chat()
    turn = user.send(chat_id, "[[words:2]]").request_id
    refused = user.http.get(_path(chat_id, turn), headers={"last-event-id": after})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert [error["field"] for error in refused.json()["errors"]] == [field]


def test_what_is_not_there_or_not_ones_own_is_not_found(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    turn = user.send(chat_id, "[[words:2]]").request_id
    assert user.http.get(_path(chat_id, str(uuid4()))).json()["code"] == "turn_not_found"
    with stack.user() as stranger:
        assert stranger.http.get(_path(chat_id, turn)).json()["code"] == "chat_not_found"
    assert user.delete(chat_id, turn).status_code == 204
    gone = user.http.get(_path(chat_id, turn))
    assert (gone.status_code, gone.json()["code"]) == (404, "turn_not_found")


def test_a_failed_turn_is_replayed_with_its_error(user: User) -> None:
    chat_id = user.new_chat()
    failed = user.send(chat_id, "[[words:2]][[failed:server_error]]")
    replayed = user.resume(chat_id, failed.request_id)
    assert replayed.events == failed.events
    assert replayed.names == ["stream_started", "delta", "error"]


SHORTEST_TIMEOUT = {"MINICHAT_ORPHAN_WATCHDOG__TIMEOUT_SECONDS": "30"}


@pytest.mark.holds("contract.dead-teller")
def test_after_a_kill_every_client_gets_what_was_stored_and_an_honest_end(tmp_path: Path) -> None:
    """Many streams, killed at many moments of theirs: each sees a prefix of what was told, then the same last word."""
    seen: dict[str, list[bytes]] = {}
    chats: dict[str, str] = {}
    with running_stack(tmp_path / "state", environment=SHORTEST_TIMEOUT) as stack:
        with another_server(stack) as victim, ThreadPoolExecutor(10) as pool:

            def read(number: int) -> None:
                request_id = str(uuid4())
                with victim.user("acme", "ann") as user:
                    chats[request_id] = user.new_chat()
                    frames_seen = seen[request_id] = []
                    # No answer ends before the kill, however long that takes.
                    content = f"[[words:500]][[delay:{20 + number * 15}]][[stall:499]]"
                    body = {"content": content, "request_id": request_id}
                    path = f"/chats/{chats[request_id]}/messages:stream"
                    with suppress(httpx2.HTTPError), user.frames(path, method="POST", json=body) as frames:
                        frames_seen.extend(frames)

            reading = [pool.submit(read, number) for number in range(10)]
            _wait_until(lambda: len(seen) == 10 and all(len(frames) > 5 for frames in seen.values()))
            _wait_until(lambda: _stored_parts(stack) >= 20)
            os.kill(victim.child.pid, signal.SIGKILL)
            for one in reading:
                one.result()
        with stack.user("acme", "ann") as user:
            for request_id, frames in seen.items():
                _check_what_survived(user, chats[request_id], request_id, frames)
        assert violations(Tables.of(Store(endpoint=stack.about["engine_url"]))) == []


def _check_what_survived(user: User, chat_id: str, request_id: str, seen: list[bytes]) -> None:
    with user.frames(_path(chat_id, request_id)) as frames:
        whole = list(frames)
    stored, last = whole[:-1], whole[-1]
    # What was stored is what had been told, at most about a second behind it.
    assert stored == seen[: len(stored)] or seen == stored[: len(seen)]
    assert len(stored) >= 3
    assert b"event: error" in last
    assert int(last.split(b"\n")[0].removeprefix(b"id: ")) > len(seen)
    # A client that is ahead of the store gets the last word alone, one that is behind gets the rest.
    for after in {0, 2, len(stored), len(seen)}:
        with user.frames(_path(chat_id, request_id), after=after) as frames:
            assert list(frames) == [*stored[after:], last]
    text = "".join(_content(frame) for frame in stored)
    assert user.messages(chat_id)[1]["content"] == text
    status: dict[str, Any] = user.turn(chat_id, request_id).json()
    assert (status["state"], status["error_code"]) == ("error", "orphan_timeout")


def _content(frame: bytes) -> str:
    name, data = frame.decode().split("\n")[1:3]
    return str(json.loads(data.removeprefix("data: "))["content"]) if name == "event: delta" else ""


def _stored_parts(stack: Stack) -> int:
    tables = Tables.of(Store(endpoint=stack.about["engine_url"]))
    return sum(item["sk"].startswith("PART#") for item in tables.conversations)


def _wait_until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
