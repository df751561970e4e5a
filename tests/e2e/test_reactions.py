"""Reactions: what the owner of a chat thinks of its answers, and nobody else's business."""

from uuid import uuid4

import httpx2
import pytest

from minichat.settings import Store
from tests.support.http.client import Stack, User
from tests.support.storage.invariants import Tables


def react(user: User, chat_id: str, message_id: str, reaction: object) -> httpx2.Response:
    return user.http.put(f"/chats/{chat_id}/messages/{message_id}/reaction", json={"reaction": reaction})


def take_back(user: User, chat_id: str, message_id: str) -> httpx2.Response:
    return user.http.delete(f"/chats/{chat_id}/messages/{message_id}/reaction")


def shown(user: User, chat_id: str) -> list[str | None]:
    return [message["my_reaction"] for message in user.messages(chat_id)]


def answered(user: User) -> tuple[str, str, str]:
    """A chat, and the ids of its one question and its answer."""
    chat_id = user.new_chat()
    user.send(chat_id, "[[say:Paris.]] The capital of France?")
    asked, answer = user.messages(chat_id)
    return chat_id, asked["id"], answer["id"]


@pytest.mark.holds("contract.reaction")
def test_an_answer_is_liked_then_disliked_then_neither(user: User) -> None:
    chat_id, _, answer_id = answered(user)
    liked = react(user, chat_id, answer_id, "like")
    assert liked.status_code == 200
    assert liked.json() == {"message_id": answer_id, "reaction": "like", "created_at": liked.json()["created_at"]}
    assert shown(user, chat_id) == [None, "like"]
    assert react(user, chat_id, answer_id, "dislike").json()["reaction"] == "dislike"
    assert shown(user, chat_id) == [None, "dislike"]
    assert [take_back(user, chat_id, answer_id).status_code for _ in range(2)] == [204, 204]
    assert shown(user, chat_id) == [None, None]


@pytest.mark.holds("contract.reaction-gone")
def test_the_same_reaction_again_changes_nothing(user: User, stack: Stack) -> None:
    chat_id, _, answer_id = answered(user)
    first = react(user, chat_id, answer_id, "like").json()
    assert react(user, chat_id, answer_id, "like").json() == first
    take_back(user, chat_id, answer_id)
    take_back(user, chat_id, answer_id)
    items = Tables.of(Store(endpoint=stack.about["engine_url"])).outbox
    told = [item["type"] for item in items if answer_id in item["payload"] and item["type"].startswith("reaction_")]
    assert sorted(told) == ["reaction_delete", "reaction_set"]


def test_only_an_answer_can_be_reacted_to(user: User) -> None:
    chat_id, asked_id, answer_id = answered(user)
    refused = react(user, chat_id, asked_id, "like")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_reaction_target")
    assert take_back(user, chat_id, asked_id).status_code == 204
    for wrong in ("love", "LIKE", "", None, True, ["like"]):
        problem = react(user, chat_id, answer_id, wrong)
        assert (problem.status_code, problem.json()["errors"][0]["field"]) == (400, "reaction"), wrong
    assert shown(user, chat_id) == [None, None]


def test_messages_that_are_unknown_or_of_another_chat_or_user_are_not_found(user: User, stack: Stack) -> None:
    chat_id, _, answer_id = answered(user)
    other_chat_id = user.new_chat()
    for found_in, message_id in ((chat_id, str(uuid4())), (other_chat_id, answer_id)):
        assert react(user, found_in, message_id, "like").json()["code"] == "message_not_found"
        assert take_back(user, found_in, message_id).json()["code"] == "message_not_found"
    with stack.user() as stranger:
        assert react(stranger, chat_id, answer_id, "like").json()["code"] == "chat_not_found"
        assert take_back(stranger, chat_id, answer_id).json()["code"] == "chat_not_found"
    assert react(user, chat_id, "no-uuid", "like").json()["errors"][0]["field"] == "message_id"
    assert shown(user, chat_id) == [None, None]


def test_a_reaction_goes_with_its_turn(user: User) -> None:
    chat_id, _, answer_id = answered(user)
    react(user, chat_id, answer_id, "like")
    request_id = user.messages(chat_id)[0]["request_id"]
    user.retry(chat_id, request_id)
    assert shown(user, chat_id) == [None, None]
    for again in (react(user, chat_id, answer_id, "dislike"), take_back(user, chat_id, answer_id)):
        assert (again.status_code, again.json()["code"]) == (404, "message_not_found")


def test_a_deleted_chat_has_no_reactions(user: User) -> None:
    chat_id, _, answer_id = answered(user)
    user.http.delete(f"/chats/{chat_id}")
    assert react(user, chat_id, answer_id, "like").json()["code"] == "chat_not_found"
