"""Where an answer has what it says from, as a user sees it: told once, stored, and told again the same."""

from uuid import uuid4

import pytest

from tests.support.http.client import Stack, User

WEB_SEARCH = {"web_search": {"enabled": True}}
PAGES = "[[cite:https://example.com/a A title]][[cite:https://example.com/b]]"


def test_a_search_of_the_web_is_told_and_its_page_cited(user: User) -> None:
    answer = user.send(user.new_chat(), "What is new?", **WEB_SEARCH)
    assert answer.names == ["stream_started", "tool", "tool", "delta", "citations", "done"]
    assert [event.data["phase"] for event in answer.events if event.name == "tool"] == ["start", "done"]
    assert answer.events[-2].data == {
        "items": [
            {
                "source": "web",
                "title": "An example",
                "url": "https://example.com/found",
                "snippet": answer.text,
                "span": {"start": 0, "end": len(answer.text)},
            }
        ]
    }


def test_without_a_search_nothing_is_cited(user: User) -> None:
    assert user.send(user.new_chat(), "What is new?").names == ["stream_started", "delta", "done"]


def test_a_replay_and_a_resumed_stream_repeat_what_was_cited(stack: Stack, user: User) -> None:
    chat_id, request_id = user.new_chat(), str(uuid4())
    content = f"[[say:Größe 🙂 counts.]]{PAGES}"
    first = user.send(chat_id, content, request_id=request_id)
    cited = first.events[-2]
    assert [(one["title"], one["snippet"], one["span"]) for one in cited.data["items"]] == [
        (title, "Größe 🙂 counts.", {"start": 0, "end": 15}) for title in ("A title", "example.com")
    ]
    assert [event.id for event in first.events] == list(range(1, len(first.events) + 1))
    calls = stack.provider_stats()["calls"]
    again = user.send(chat_id, content, request_id=request_id)
    assert again.names == ["stream_started", "delta", "citations", "done"]
    assert (again.text, again.events[-2].data) == (first.text, cited.data)
    for after in (None, 1, cited.id and cited.id - 1):
        assert user.resume(chat_id, request_id, after).events == first.events[after or 0 :]
    assert stack.provider_stats()["calls"] == calls
    question, reply = user.messages(chat_id)
    assert "citations" not in question
    assert reply["citations"] == cited.data["items"] == user.turn(chat_id, request_id).json()["citations"]


def test_a_retried_turn_cites_anew(user: User) -> None:
    chat_id = user.new_chat()
    first = user.send(chat_id, f"[[say:Yes.]]{PAGES}")
    retried = user.retry(chat_id, first.request_id)
    assert retried.names == ["stream_started", "delta", "citations", "done"]
    edited = user.edit(chat_id, retried.request_id, "[[say:Yes.]]")
    assert edited.names == ["stream_started", "delta", "done"]


def test_files_that_are_not_the_chats_and_addresses_that_lead_astray_are_not_told(user: User) -> None:
    cites = "[[cite-file:file-abc]][[cite:javascript:alert(1)]][[cite:https://ann:secret@example.com/]]"
    assert user.send(user.new_chat(), f"[[say:Yes.]]{cites}").names == ["stream_started", "delta", "done"]


@pytest.mark.holds("contract.citations")
def test_an_answer_cut_at_the_output_limit_cites_and_one_that_failed_does_not(user: User) -> None:
    cut = user.send(user.new_chat(), f"[[say:half]]{PAGES}[[incomplete:max_output_tokens]]")
    assert cut.names == ["stream_started", "delta", "citations", "done"]
    failed = user.send(user.new_chat(), f"[[say:half]]{PAGES}[[failed:server_error]]")
    assert failed.names == ["stream_started", "delta", "error"]


def test_a_cancelled_turn_cites_nothing(stack: Stack, user: User) -> None:
    chat_id, hold = user.new_chat(), uuid4().hex
    body = {"content": f"[[words:5]]{PAGES}[[hold:{hold}]]"}
    with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
        request_id = next(events).data["request_id"]
        next(events)
        assert user.cancel(chat_id, request_id).status_code == 202
        names = [event.name for event in events]
    stack.release(hold)
    assert (names[-1], "citations" in names) == ("error", False)
