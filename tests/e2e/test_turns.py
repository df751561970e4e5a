"""Send, replay, retry, edit, delete: the contract's rows as a user sees them."""

from uuid import uuid4

import pytest

from tests.support.http.client import Stack, User


@pytest.mark.holds("contract.numbers", "contract.grammar", "contract.done-says")
def test_a_first_answer_streams_in_the_contracts_order(user: User) -> None:
    chat_id, request_id = user.new_chat(), str(uuid4())
    answer = user.send(chat_id, "[[say:Paris it is.]]", request_id=request_id)
    assert answer.status == 200
    assert answer.names == ["stream_started", "delta", "done"]
    assert answer.text == "Paris it is."
    assert [event.id for event in answer.events] == list(range(1, len(answer.events) + 1))
    started, done = answer.events[0].data, answer.events[-1].data
    assert (started["request_id"], started["is_new_turn"]) == (request_id, True)
    assert done == {
        "completion_signal": {"kind": "complete"},
        "usage": {"input_tokens": done["usage"]["input_tokens"], "output_tokens": 3, "model": "gpt-4.1"},
        "effective_model": "gpt-4.1",
        "selected_model": "gpt-4.1",
        "quota_decision": "allow",
        "quota_warnings": [
            {"tier": tier, "period": period, "remaining_percentage": 99, "warning": False, "exhausted": False}
            for tier in ("premium", "total")
            for period in ("daily", "monthly")
        ],
    }
    status = user.turn(chat_id, request_id).json()
    assert status == {
        "request_id": request_id,
        "state": "done",
        "assistant_message_id": started["message_id"],
        "updated_at": status["updated_at"],
        "citations": [],
        "tool_calls": {"file_search": 0, "web_search": 0, "code_interpreter": 0},
        **{name: value for name, value in done.items() if name != "quota_warnings"},
    }


@pytest.mark.holds("turns.count")
def test_both_messages_of_a_turn_are_listed_and_counted(user: User) -> None:
    chat_id = user.new_chat()
    answer = user.send(chat_id, "[[say:Yes.]]Really?")
    question, reply = user.messages(chat_id)
    assert question == {
        "id": question["id"],
        "request_id": answer.request_id,
        "role": "user",
        "content": "[[say:Yes.]]Really?",
        "attachments": [],
        "my_reaction": None,
        "created_at": question["created_at"],
    }
    assert reply == {
        "id": answer.events[0].data["message_id"],
        "request_id": answer.request_id,
        "role": "assistant",
        "content": "Yes.",
        "attachments": [],
        "my_reaction": None,
        "model": "gpt-4.1",
        "input_tokens": answer.events[-1].data["usage"]["input_tokens"],
        "output_tokens": 1,
        "completion_signal": {"kind": "complete"},
        "citations": [],
        "tool_calls": {"file_search": 0, "web_search": 0, "code_interpreter": 0},
        "effective_model": "gpt-4.1",
        "selected_model": "gpt-4.1",
        "quota_decision": "allow",
        "created_at": reply["created_at"],
    }
    assert question["created_at"] < reply["created_at"]
    assert user.chat(chat_id)["message_count"] == 2


@pytest.mark.holds("contract.replay", "turns.replay-nothing")
def test_the_same_request_id_replays_the_completed_turn_without_the_provider(stack: Stack, user: User) -> None:
    chat_id, request_id = user.new_chat(), str(uuid4())
    first = user.send(chat_id, "[[words:12]]", request_id=request_id)
    calls = stack.provider_stats()["calls"]
    again = user.send(chat_id, "[[words:12]]", request_id=request_id)
    assert again.names == ["stream_started", "delta", "done"]
    assert again.events[0].data == first.events[0].data | {"is_new_turn": False}
    assert again.text == first.text
    done = dict(first.events[-1].data)
    del done["quota_warnings"]  # of that moment, and not replayed
    assert again.events[-1].data == done
    assert stack.provider_stats()["calls"] == calls
    assert user.chat(chat_id)["message_count"] == 2


def test_a_completed_request_id_with_other_content_is_refused(user: User) -> None:
    chat_id, request_id = user.new_chat(), str(uuid4())
    user.send(chat_id, "one", request_id=request_id)
    answer = user.send(chat_id, "two", request_id=request_id)
    assert (answer.status, answer.problem["code"]) == (422, "request_id_reused")


@pytest.mark.holds("contract.send-order", "contract.durable")
def test_a_completed_turn_is_replayed_while_another_one_runs(stack: Stack, user: User) -> None:
    chat_id, request_id, hold = user.new_chat(), str(uuid4()), uuid4().hex
    user.send(chat_id, "first", request_id=request_id)
    body = {"content": f"[[hold:{hold}]]"}
    with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
        running = next(events).data["request_id"]
        assert user.chat(chat_id)["running_request_id"] == running
        assert user.turn(chat_id, running).json()["state"] == "running"
        assert user.send(chat_id, "first", request_id=request_id).names[-1] == "done"
        refused = user.send(chat_id, "third")
        assert (refused.status, refused.problem["code"]) == (409, "generation_in_progress")
        same = user.send(chat_id, body["content"], request_id=running)
        assert (same.status, same.problem["code"], same.problem["turn_state"]) == (
            409,
            "request_id_conflict",
            "running",
        )
        for change in (user.retry(chat_id, running), user.edit(chat_id, running, "other")):
            assert (change.status, change.problem["code"]) == (400, "invalid_turn_state")
        refused_delete = user.delete(chat_id, running)
        assert (refused_delete.status_code, refused_delete.json()["code"]) == (400, "invalid_turn_state")
        stack.release(hold)
        assert [event.name for event in events][-1] == "done"
    assert "running_request_id" not in user.chat(chat_id)


@pytest.mark.holds("contract.new-turn")
def test_retry_puts_a_new_turn_in_the_place_of_the_old_one(user: User) -> None:
    chat_id = user.new_chat()
    first = user.send(chat_id, "Say something")
    retried = user.retry(chat_id, first.request_id)
    assert retried.names == ["stream_started", "delta", "done"]
    assert retried.events[0].data["is_new_turn"] is True
    assert retried.request_id != first.request_id
    listed = user.messages(chat_id)
    assert [message["request_id"] for message in listed] == [retried.request_id] * 2
    assert [message["content"] for message in listed] == ["Say something", retried.text]
    assert user.chat(chat_id)["message_count"] == 2
    assert user.turn(chat_id, first.request_id).json()["code"] == "turn_not_found"
    for late in (user.retry(chat_id, first.request_id), user.edit(chat_id, first.request_id, "x")):
        assert (late.status, late.problem["code"]) == (409, "not_latest_turn")
    again = user.send(chat_id, "Say something", request_id=first.request_id)
    assert (again.status, again.problem["code"], again.problem["turn_state"]) == (409, "request_id_conflict", "done")


@pytest.mark.holds("contract.retry-forms")
def test_retry_is_also_reached_by_its_colon_form(user: User) -> None:
    chat_id = user.new_chat()
    first = user.send(chat_id, "hello")
    assert user.stream("POST", f"/chats/{chat_id}/turns/{first.request_id}:retry").names[-1] == "done"


@pytest.mark.holds("contract.new-turn")
def test_edit_answers_the_new_message(user: User) -> None:
    chat_id = user.new_chat()
    first = user.send(chat_id, "[[say:old]]")
    edited = user.edit(chat_id, first.request_id, "[[say:new]]")
    assert edited.text == "new"
    assert [message["content"] for message in user.messages(chat_id)] == ["[[say:new]]", "new"]


@pytest.mark.holds("turns.delete")
def test_deleting_the_latest_turn_makes_the_one_before_it_the_latest(user: User) -> None:
    chat_id = user.new_chat()
    first, second = user.send(chat_id, "one"), user.send(chat_id, "two")
    refused = user.delete(chat_id, first.request_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_latest_turn")
    assert user.delete(chat_id, second.request_id).status_code == 204
    assert user.chat(chat_id)["message_count"] == 2
    twice = user.delete(chat_id, second.request_id)
    assert (twice.status_code, twice.json()["code"]) == (409, "not_latest_turn")
    assert user.delete(chat_id, first.request_id).status_code == 204
    assert user.messages(chat_id) == []
    assert user.chat(chat_id)["message_count"] == 0


@pytest.mark.holds("turns.successor")
def test_a_turn_after_a_deleted_one_can_be_deleted_back_to_the_start(user: User) -> None:
    chat_id = user.new_chat()
    first, second = user.send(chat_id, "one"), user.send(chat_id, "two")
    user.delete(chat_id, second.request_id)
    third = user.send(chat_id, "three")
    retried = user.retry(chat_id, third.request_id)
    assert user.delete(chat_id, retried.request_id).status_code == 204
    assert user.delete(chat_id, first.request_id).status_code == 204


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("[[failed:server_error]]", "provider_error"),
        ("[[error:server_error]]", "provider_error"),
        ("[[status:400]]", "validation_error"),
        ("[[status:429]]", "rate_limited"),
        ("[[status:504]]", "provider_timeout"),
        ("[[cut:1]]", "provider_error"),
        ("[[end:1]]", "provider_error"),
        ("[[garbage:1]]", "provider_error"),
        ("[[html]]", "provider_error"),
        ("[[redirect]]", "provider_error"),
    ],
)
@pytest.mark.holds("contract.error-sentences", "contract.cancelled-text")
def test_a_provider_that_fails_ends_the_turn_with_a_fixed_sentence(user: User, script: str, code: str) -> None:
    chat_id = user.new_chat()
    answer = user.send(chat_id, f"[[words:3]]{script}")
    assert answer.names[0] == "stream_started"
    assert answer.names[-1] == "error"
    assert answer.events[-1].data["code"] == code
    assert not any(word in answer.events[-1].data["message"] for word in ("resp_", "sk-", "http", "scripted"))
    status = user.turn(chat_id, answer.request_id).json()
    assert (status["state"], status["error_code"]) == ("error", code)
    assert "assistant_message_id" not in status
    assert [message["role"] for message in user.messages(chat_id)] == ["user"]
    # The chat is free again, and the failed turn can be retried.
    assert user.retry(chat_id, answer.request_id).names[0] == "stream_started"


def test_a_refusal_that_passes_is_tried_again_before_the_first_byte(user: User) -> None:
    answer = user.send(user.new_chat(), f"[[say:at last]][[status:503]][[fail-times:1]]{uuid4()}")
    assert (answer.text, answer.names[-1]) == ("at last", "done")


def test_an_answer_cut_at_the_output_limit_is_done(user: User) -> None:
    chat_id = user.new_chat()
    answer = user.send(chat_id, "[[say:half]][[incomplete:max_output_tokens]]")
    assert answer.names == ["stream_started", "delta", "done"]
    assert user.turn(chat_id, answer.request_id).json()["state"] == "done"


@pytest.mark.holds("contract.grammar", "turns.beyond-aside")
def test_tools_are_told_and_their_number_is_limited(user: User) -> None:
    search = "[[tool:web_search]]"
    answer = user.send(user.new_chat(), f"[[say:found]]{search}", web_search={"enabled": True})
    assert answer.names == ["stream_started", "tool", "tool", "delta", "citations", "done"]
    assert answer.events[1].data == {"phase": "start", "name": "web_search", "details": {}}
    assert answer.events[2].data == {"phase": "done", "name": "web_search", "details": {"query": "as told"}}
    too_many = user.send(user.new_chat(), f"[[say:found]]{search * 3}", web_search={"enabled": True})
    assert too_many.events[-1].data["code"] == "web_search_calls_exceeded"


def test_the_history_goes_to_the_provider_and_deleted_turns_do_not(user: User) -> None:
    chat_id = user.new_chat()
    plain = user.send(user.new_chat(), "[[say:ok]]short").events[-1].data["usage"]["input_tokens"]
    long = user.send(chat_id, "[[say:ok]]" + "x" * 4000)
    with_history = user.send(chat_id, "[[say:ok]]short")
    assert with_history.events[-1].data["usage"]["input_tokens"] > 1000
    user.delete(chat_id, with_history.request_id)
    user.delete(chat_id, long.request_id)
    without = user.send(chat_id, "[[say:ok]]short")
    assert without.events[-1].data["usage"]["input_tokens"] == plain


@pytest.mark.holds("contract.leaving")
def test_a_client_that_leaves_does_not_end_the_turn(stack: Stack, user: User) -> None:
    chat_id, hold = user.new_chat(), uuid4().hex
    body = {"content": f"[[words:40]][[delay:0]][[hold:{hold}]]"}
    with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
        request_id = next(events).data["request_id"]
    stack.release(hold)
    wait_until_ended(user, chat_id, request_id)
    assert user.turn(chat_id, request_id).json()["state"] == "done"
    assert user.messages(chat_id)[1]["content"].endswith("word40")


@pytest.mark.holds("contract.delete-cancels")
def test_deleting_a_chat_cancels_its_running_turn_and_hides_everything(stack: Stack, user: User) -> None:
    chat_id, hold = user.new_chat(), uuid4().hex
    body = {"content": f"[[words:5]][[hold:{hold}]]"}
    with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
        request_id = next(events).data["request_id"]
        assert user.http.delete(f"/chats/{chat_id}").status_code == 204
        last = list(events)[-1]
    assert (last.name, last.data["code"]) == ("error", "cancelled")
    for answer in (
        user.http.get(f"/chats/{chat_id}"),
        user.http.get(f"/chats/{chat_id}/messages"),
        user.turn(chat_id, request_id),
        user.http.delete(f"/chats/{chat_id}"),
        user.http.patch(f"/chats/{chat_id}", json={"title": "x"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "chat_not_found")


def wait_until_ended(user: User, chat_id: str, request_id: str) -> None:
    """Returns once the turn is no longer running; the deadline of the test run bounds it."""
    for _ in range(2000):
        if user.turn(chat_id, request_id).json()["state"] != "running":
            return
    pytest.fail("the turn did not end")
