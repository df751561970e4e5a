"""Chats and lists: create, rename, delete, pages, filters."""

import time
from typing import Any
from uuid import uuid4

import pytest

from tests.support.http.client import User

TITLED_SECONDS = 120
"""Outbox, relay, queue, worker and provider, on a busy machine."""


@pytest.mark.holds("contract.create")
def test_a_new_chat_has_the_default_model_and_its_location(user: User) -> None:
    answer = user.http.post("/chats", json={"title": "  Trip to Paris "})
    chat = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"].endswith(f"/v1/chats/{chat['id']}")
    assert chat == {
        "id": chat["id"],
        "model": "gpt-4.1",
        "title": "Trip to Paris",
        "is_temporary": False,
        "message_count": 0,
        "created_at": chat["created_at"],
        "updated_at": chat["created_at"],
    }
    assert user.chat(chat["id"]) == chat


def test_behind_a_proxy_addresses_have_the_prefix_that_it_takes_away(user: User) -> None:
    behind = {"x-forwarded-prefix": "/talk"}
    made = user.http.post("/chats", json={}, headers=behind)
    assert made.headers["location"] == f"/talk/mini-chat/v1/chats/{made.json()['id']}"
    assert user.http.get("/openapi.json", headers=behind).json()["servers"] == [{"url": "/talk"}]
    assert user.http.get("/openapi.json").json()["servers"] == [{"url": "/"}]


@pytest.mark.holds("contract.rename")
def test_a_chat_is_renamed_and_nothing_else_of_it_changes(user: User) -> None:
    chat_id = user.new_chat(model="gpt-4.1-mini")
    renamed = user.http.patch(f"/chats/{chat_id}", json={"title": "New", "model": "gpt-4.1", "id": "x"})
    assert renamed.status_code == 200
    assert (renamed.json()["title"], renamed.json()["model"]) == ("New", "gpt-4.1-mini")
    assert renamed.json()["updated_at"] > renamed.json()["created_at"]


def test_a_chat_without_a_title_gets_one_from_its_first_exchange(user: User) -> None:
    chat_id, titled = user.new_chat(), user.new_chat(title="Mine")
    for one in (chat_id, titled):
        user.send(one, "[[say:A week is enough.]]How long should I stay in Paris this spring?")
    until = time.monotonic() + TITLED_SECONDS
    while (chat := user.chat(chat_id)).get("title") is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert chat["title"] == "How long should I stay in"
    assert [one["id"] for one in user.http.get("/chats").json()["items"]] == [titled, chat_id]
    assert user.chat(titled)["title"] == "Mine"


@pytest.mark.holds("contract.key")
def test_the_same_idempotency_key_gives_the_same_chat(user: User) -> None:
    headers = {"idempotency-key": uuid4().hex}
    first = user.http.post("/chats", json={"title": "One"}, headers=headers)
    again = user.http.post("/chats", json={"title": "One"}, headers=headers)
    other = user.http.post("/chats", json={"title": "Two"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_conflict")
    assert len(user.http.get("/chats").json()["items"]) == 1


@pytest.mark.holds("contract.key-deleted")
def test_a_key_whose_chat_was_deleted_gives_no_chat(user: User) -> None:
    headers = {"idempotency-key": uuid4().hex}
    first = user.http.post("/chats", json={}, headers=headers).json()
    assert user.http.delete(f"/chats/{first['id']}").status_code == 204
    again = user.http.post("/chats", json={}, headers=headers)
    assert (again.status_code, again.json()["code"]) == (404, "chat_not_found")


@pytest.mark.holds("contract.key-deleted")
def test_a_key_whose_attachment_was_deleted_gives_no_attachment(user: User) -> None:
    attachments = f"/chats/{user.new_chat()}/attachments"
    announced = {"filename": "a.txt", "size_bytes": 5}
    ways: dict[str, dict[str, Any]] = {
        f"{attachments}/uploads": {"json": announced},
        attachments: {"files": {"file": ("a.txt", b"text", "text/plain")}},
    }
    for path, body in ways.items():
        keyed = {"idempotency-key": uuid4().hex}
        first = user.http.post(path, headers=keyed, **body).json()
        assert user.http.delete(f"{attachments}/{first['id']}").status_code == 204
        again = user.http.post(path, headers=keyed, **body)
        assert (again.status_code, again.json()["code"]) == (404, "attachment_not_found")


@pytest.mark.holds("contract.list-order")
def test_chats_are_listed_by_activity_page_by_page_in_both_directions(user: User) -> None:
    made = [user.new_chat(title=f"chat {number}") for number in range(5)]
    user.send(made[0], "[[say:ok]]")
    expected = [made[0], *reversed(made[1:])]
    first = user.http.get("/chats", params={"limit": 2}).json()
    second = user.http.get("/chats", params={"limit": 2, "cursor": first["page_info"]["next_cursor"]}).json()
    third = user.http.get("/chats", params={"limit": 2, "cursor": second["page_info"]["next_cursor"]}).json()
    back = user.http.get("/chats", params={"limit": 2, "cursor": third["page_info"]["prev_cursor"]}).json()
    ids = [[chat["id"] for chat in page["items"]] for page in (first, second, third)]
    assert ids == [expected[:2], expected[2:4], expected[4:]]
    assert first["page_info"]["prev_cursor"] is None
    assert third["page_info"]["next_cursor"] is None
    assert back["items"] == second["items"]


def test_a_deleted_chat_is_not_listed(user: User) -> None:
    kept, gone = user.new_chat(), user.new_chat()
    user.http.delete(f"/chats/{gone}")
    assert [chat["id"] for chat in user.http.get("/chats").json()["items"]] == [kept]


def _conversation(user: User) -> str:
    chat_id = user.new_chat()
    for number in range(4):
        user.send(chat_id, f"[[say:answer {number}]][[delay:0]]")
    return chat_id


@pytest.mark.holds("contract.orderby")
def test_messages_come_in_pages_that_meet_without_gap_or_overlap(user: User) -> None:
    chat_id = _conversation(user)
    whole = user.messages(chat_id)
    assert len(whole) == 8
    assert whole == sorted(whole, key=lambda message: (message["created_at"], message["id"]))
    for order in ("created_at asc", "created_at desc", "id asc", "id desc"):
        expected = whole[::-1] if order.endswith("desc") else whole
        assert user.messages(chat_id, **{"$orderby": order}) == expected
        for limit in (1, 3, 8):
            forward, last_page = _walk(user, chat_id, {"limit": limit, "$orderby": order}, "next_cursor")
            assert forward == expected
            backward, _ = _walk(user, chat_id, {"limit": limit, "cursor": last_page["next"]}, "prev_cursor")
            assert backward == expected[: len(backward)]


def _walk(
    user: User, chat_id: str, params: dict[str, object], direction: str
) -> tuple[list[dict[str, object]], dict[str, object]]:
    found: list[dict[str, object]] = []
    given: dict[str, Any] = dict(params)
    last: dict[str, object] = {"next": None}
    while True:
        if given.get("cursor", "") is None:
            return found, last
        page = user.http.get(f"/chats/{chat_id}/messages", params=given).json()
        found = found + page["items"] if direction == "next_cursor" else page["items"] + found
        cursor = page["page_info"][direction]
        if cursor is None:
            return found, last
        last = {"next": cursor}
        given = {"limit": params["limit"], "cursor": cursor}


@pytest.mark.holds("contract.filter")
def test_filters_and_selections_are_applied(user: User) -> None:
    chat_id = _conversation(user)
    whole = user.messages(chat_id)
    third = whole[2]

    def ids(filter_: str) -> list[str]:
        return [message["id"] for message in user.messages(chat_id, **{"$filter": filter_})]

    assert ids("role eq 'assistant'") == [m["id"] for m in whole if m["role"] == "assistant"]
    assert ids("role in ('user','system')") == [m["id"] for m in whole if m["role"] == "user"]
    assert ids("role eq 'nobody'") == []
    assert ids(f"id eq {third['id']}") == [third["id"]]
    assert ids(f"id ne {third['id']} and role ne 'assistant'") == [
        m["id"] for m in whole if m["role"] == "user" and m is not third
    ]
    assert ids(f"created_at gt {third['created_at']}") == [m["id"] for m in whole[3:]]
    assert ids(f"created_at le {third['created_at']}") == [m["id"] for m in whole[:3]]
    assert ids(f"(created_at eq {third['created_at']})") == [third["id"]]
    assert user.messages(chat_id, **{"$select": "id,role"}) == [{"id": m["id"], "role": m["role"]} for m in whole]


def test_a_filtered_list_keeps_its_filter_in_the_cursor(user: User) -> None:
    chat_id = _conversation(user)
    page = user.http.get(f"/chats/{chat_id}/messages", params={"limit": 2, "$filter": "role eq 'user'"}).json()
    following = user.http.get(f"/chats/{chat_id}/messages", params={"cursor": page["page_info"]["next_cursor"]}).json()
    assert [m["role"] for m in page["items"] + following["items"]] == ["user"] * 4
    assert following["page_info"]["next_cursor"] is None


@pytest.mark.holds("contract.models")
def test_models_show_what_may_be_chosen_and_nothing_of_the_provider(user: User) -> None:
    items = user.http.get("/models").json()["items"]
    assert [model["model_id"] for model in items] == ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
    allowed = {
        "model_id",
        "display_name",
        "tier",
        "multiplier_display",
        "description",
        "multimodal_capabilities",
        "context_window",
    }
    assert all(set(model) <= allowed for model in items)
    assert user.http.get("/models/gpt-4.1-mini").json() == items[1]
    missing = user.http.get("/models/gpt-9")
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")


@pytest.mark.holds("contract.request-id", "contract.server-timing")
def test_every_response_carries_its_request_id_and_timing(user: User) -> None:
    given = user.http.get("/models", headers={"x-request-id": "my-id.1"})
    odd = user.http.get("/models", headers={"x-request-id": "not well formed"})
    assert given.headers["x-request-id"] == "my-id.1"
    assert odd.headers["x-request-id"] not in ("", "not well formed")
    assert "auth;dur=" in given.headers["server-timing"]
