"""Cancel: within two seconds, whoever serves the stream; the text stays, and the next message is possible."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import httpx2
import pytest

from minichat.settings import Store
from tests.conftest import another_server
from tests.support.http.client import Event, Stack, User
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations


def two_seconds(user: User) -> float:
    """Two seconds, and what the machine is too busy for now: a promise of the product is not one of this machine."""
    began = time.monotonic()
    assert user.send(user.new_chat(), "[[say:hi]][[delay:0]]").text == "hi"
    return 2 + 5 * (time.monotonic() - began)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("[[hold-start:{hold}]]", ["stream_started"]),
        ("[[words:9]][[hold:{hold}]]", ["stream_started", "delta"]),
        ("[[tool:web_search]][[hold-tool:{hold}]]", ["stream_started", "tool"]),
    ],
    ids=["before the first token", "in the text", "in a tool call"],
)
@pytest.mark.holds("contract.cancel")
def test_a_cancelled_stream_ends_in_two_seconds_and_closes_the_provider(
    stack: Stack, user: User, script: str, told: list[str]
) -> None:
    chat_id, hold, request_id = user.new_chat(), uuid4().hex, str(uuid4())
    seconds = two_seconds(user)
    broken_off = stack.provider_stats()["broken_off"]
    body = {"content": script.format(hold=hold), "request_id": request_id, "web_search": {"enabled": "tool" in script}}
    with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
        assert [next(events).name for _ in told] == told
        asked_at = time.monotonic()
        asked = user.cancel(chat_id, request_id)
        assert (asked.status_code, asked.json()["state"]) == (202, "running")
        rest = list(events)
        assert time.monotonic() - asked_at < seconds
    assert [event.data["code"] for event in rest if event.name != "ping"] == ["cancelled"]
    status = user.turn(chat_id, request_id).json()
    assert status["state"] == "cancelled"
    _wait_until_broken_off(stack, broken_off + 1)
    kept = [message["content"] for message in user.messages(chat_id) if message["role"] == "assistant"]
    assert kept == (["word1 "] if "delta" in told else [])
    assert user.send(chat_id, "[[say:on we go]]").text == "on we go"


@pytest.mark.holds("contract.cancel")
def test_a_turn_is_cancelled_from_another_instance(stack: Stack) -> None:
    hold, request_id = uuid4().hex, str(uuid4())
    with another_server(stack) as second, stack.user("acme", hold) as user, second.user("acme", hold) as elsewhere:
        chat_id, seconds = user.new_chat(), two_seconds(elsewhere)
        body = {"content": f"[[words:9]][[hold:{hold}]]", "request_id": request_id}
        with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
            next(events), next(events)
            asked_at = time.monotonic()
            assert elsewhere.cancel(chat_id, request_id).status_code == 202
            assert elsewhere.cancel(chat_id, request_id).status_code == 202
            (last,) = (event for event in events if event.name != "ping")
            assert time.monotonic() - asked_at < seconds
        assert last.data["code"] == "cancelled"
        replayed = elsewhere.resume(chat_id, request_id)
        assert replayed.names == ["stream_started", "delta", "error"]
        assert replayed.events[-1] == Event("error", last.data, 3)
    tables = Tables.of(Store(endpoint=stack.about["engine_url"]))
    assert violations(tables) == []
    asked = [item for item in tables.outbox if item["type"] == "turn_cancel" and request_id in item["payload"]]
    assert len(asked) == 1


@pytest.mark.parametrize(("on_disconnect", "state"), [("cancel", "cancelled"), ("continue", "done")])
@pytest.mark.holds("contract.leaving")
def test_a_client_that_leaves_cancels_or_not_as_configured(stack: Stack, on_disconnect: str, state: str) -> None:
    hold, request_id = uuid4().hex, str(uuid4())
    setting = {"MINICHAT_STREAMING__ON_DISCONNECT": on_disconnect}
    with another_server(stack, **setting) as server, server.user("acme", hold) as user:
        chat_id = user.new_chat()
        body = {"content": f"[[words:3]][[hold:{hold}]]", "request_id": request_id}
        with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
            next(events), next(events)
        if on_disconnect == "continue":
            stack.release(hold)
        assert _ended(user, chat_id, request_id) == state
        text = user.messages(chat_id)[1]["content"]
        assert text == ("word1 " if state == "cancelled" else "word1 word2 word3")


def test_clients_that_leave_when_their_answer_ends_leave_no_turn_running(stack: Stack) -> None:
    name = uuid4().hex
    with another_server(stack, MINICHAT_STREAMING__ON_DISCONNECT="cancel") as server:

        def leaves(number: int) -> tuple[str, str]:
            request_id = str(uuid4())
            with server.user("acme", name) as user:
                chat_id = user.new_chat()
                body = {"content": "[[words:8]][[delay:20]]", "request_id": request_id}
                with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
                    # From the last words to the moment after `done`.
                    for _ in range(7 + number % 4):
                        next(events, None)
            return chat_id, request_id

        with ThreadPoolExecutor(12) as pool:
            left = list(pool.map(leaves, range(96)))
        with stack.user("acme", name) as user:
            states = [_ended(user, *turn) for turn in left]
    assert set(states) <= {"done", "cancelled"}
    assert violations(Tables.of(Store(endpoint=stack.about["engine_url"]))) == []


def test_a_server_that_stops_while_messages_come_in_leaves_no_turn_running(stack: Stack) -> None:
    name = uuid4().hex
    with another_server(stack) as server, stack.user("acme", name) as user:
        chats = [user.new_chat() for _ in range(16)]

        def sends(chat_id: str) -> None:
            with server.user("acme", name) as there, suppress(httpx2.HTTPError):
                while there.send(chat_id, "[[words:3]][[delay:20]]").status < 500:
                    pass

        with ThreadPoolExecutor(len(chats)) as pool:
            sending = [pool.submit(sends, chat_id) for chat_id in chats]
            while min(user.chat(chat_id)["message_count"] for chat_id in chats) < 4:
                time.sleep(0.05)
            server.child.stop()
            for one in sending:
                one.result()
        assert [chat_id for chat_id in chats if "running_request_id" in user.chat(chat_id)] == []


def test_a_server_that_stops_ends_its_streams_and_keeps_their_text(stack: Stack) -> None:
    hold, request_id = uuid4().hex, str(uuid4())
    with another_server(stack) as server, stack.user("acme", hold) as user, server.user("acme", hold) as there:
        chat_id = user.new_chat()
        body = {"content": f"[[words:3]][[hold:{hold}]]", "request_id": request_id}
        with there.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
            next(events), next(events)
            server.child.stop()
        signal = {"kind": "incomplete", "reason": "interrupted"}
        status, (last,) = user.turn(chat_id, request_id).json(), user.resume(chat_id, request_id, after=2).events
        assert (status["state"], status["completion_signal"], status["usage"]) == ("done", signal, None)
        assert (last.name, last.data["completion_signal"], last.data["usage"]) == ("done", signal, None)
        assert user.messages(chat_id)[1]["content"] == "word1 "


@pytest.mark.holds("contract.cancel")
def test_a_turn_that_has_ended_answers_with_its_state(user: User) -> None:
    chat_id = user.new_chat()
    done = user.cancel(chat_id, user.send(chat_id, "[[say:done]]").request_id)
    assert (done.status_code, done.json()["state"]) == (200, "done")
    failed = user.cancel(chat_id, user.send(chat_id, "[[failed:server_error]]").request_id)
    assert (failed.status_code, failed.json()["state"]) == (200, "error")


def test_what_is_not_there_or_not_ones_own_cannot_be_cancelled(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    turn = user.send(chat_id, "[[say:done]]").request_id
    assert user.cancel(chat_id, str(uuid4())).json()["code"] == "turn_not_found"
    with stack.user() as stranger:
        assert stranger.cancel(chat_id, turn).json()["code"] == "chat_not_found"
    user.delete(chat_id, turn)
    assert user.cancel(chat_id, turn).json()["code"] == "turn_not_found"


def _ended(user: User, chat_id: str, request_id: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while (state := str(user.turn(chat_id, request_id).json()["state"])) == "running":
        assert time.monotonic() < deadline
    return state


def _wait_until_broken_off(stack: Stack, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while stack.provider_stats()["broken_off"] < count:
        assert time.monotonic() < deadline
