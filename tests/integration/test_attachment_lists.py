"""The list of a chat's attachments: each that is there, once, in both directions, within what a response holds."""

from collections.abc import Iterator

import pytest
from starlette.requests import Request

from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.errors import ChatNotFound, InvalidCursor, InvalidRequest
from minichat.domain.identity import ChatId
from minichat.domain.message_size import told_bytes
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.http.response_models import AttachmentDetail, Page, attachment_detail
from minichat.local.lambda_events import EVENT_MAX_BYTES
from minichat.services import attachments as service
from minichat.services import chats
from minichat.services.policy_in_force import Rules
from minichat.settings import Store, Thumbnails
from tests.support.domain.builders import a_call, a_caller, a_policy, unhurried
from tests.support.services.ready_files import announced, ready
from tests.support.storage.faults import counted_calls

RULES = Rules(unhurried(), a_policy())
CODEC = CursorCodec("of these tests")


def a_chat() -> Chat:
    return chats.create(a_call(), chats.NewChat(), RULES)


def a_document(chat: Chat) -> Attachment:
    return announced(a_call(), chat, RULES, "application/pdf", "a.pdf")


def an_image(chat: Chat, picture: bytes) -> Attachment:
    return ready(a_call(), announced(a_call(), chat, RULES, "image/png", "a.png"), picture)


def page(chat_id: ChatId, cursor: str | None = None, limit: int = 2, user: int = 2) -> Page[AttachmentDetail]:
    return listing.attachments(a_call(a_caller(user=user)), CODEC, chat_id, listing.Query(limit, cursor))


def pages(chat_id: ChatId, limit: int = 2) -> Iterator[Page[AttachmentDetail]]:
    cursor = None
    while True:
        one = page(chat_id, cursor, limit)
        yield one
        cursor = one.page_info.next_cursor
        if cursor is None:
            return


def ids(found: list[Page[AttachmentDetail]]) -> list[str]:
    return [str(file.id) for one in found for file in one.items]


@pytest.mark.parametrize("looked_at", [1, 4, 1000])
@pytest.mark.holds("contract.attachment-list")
def test_every_attachment_is_listed_once_the_last_added_first(
    store: Store, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", looked_at)
    chat, other = a_chat(), a_chat()
    made = [a_document(chat) for _ in range(12)]
    a_document(other)
    deleted = made[0:1] + made[3:8]
    for one in deleted:
        service.delete(a_call(), chat.chat_id, one.attachment_id)
    wanted = [one.attachment_id for one in reversed(made) if one not in deleted]
    there = list(pages(chat.chat_id))
    assert ids(there) == wanted
    assert all(len(one.items) <= 2 for one in there)
    last = [one for one in there if one.items][-1]
    back, cursor = ids([last]), last.page_info.prev_cursor
    while cursor is not None:
        before = page(chat.chat_id, cursor)
        back, cursor = ids([before]) + back, before.page_info.prev_cursor
    assert back == wanted


def test_an_attachment_is_listed_as_it_is_shown_alone(store: Store) -> None:
    chat = a_chat()
    picture, waiting = an_image(chat, b"a small picture"), a_document(chat)
    first, second = page(chat.chat_id).items
    assert (str(first.id), first.status, first.img_thumbnail) == (waiting.attachment_id, "pending", None)
    alone = service.get(a_call(), chat.chat_id, picture.attachment_id)
    assert second == attachment_detail(alone)
    assert second.img_thumbnail is not None


def test_a_page_of_the_largest_thumbnails_is_cut_and_goes_on(store: Store) -> None:
    chat, largest = a_chat(), Thumbnails.model_fields["max_bytes"].default
    made = [an_image(chat, b"\x00" * largest) for _ in range(50)]
    there = list(pages(chat.chat_id, limit=100))
    assert ids(there) == [one.attachment_id for one in reversed(made)]
    assert len(there) == 2
    assert all(file.img_thumbnail is not None for one in there for file in one.items)
    assert all(told_bytes(one.model_dump(mode="json")) < EVENT_MAX_BYTES for one in there)


def test_an_attachment_that_is_larger_than_a_page_is_listed_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_MAX_BYTES", 1)
    chat = a_chat()
    made = [a_document(chat) for _ in range(3)]
    assert [len(one.items) for one in pages(chat.chat_id, limit=20)] == [1, 1, 1]
    assert ids(list(pages(chat.chat_id, limit=20))) == [one.attachment_id for one in reversed(made)]


def test_a_chat_without_attachments_has_an_empty_page(store: Store) -> None:
    empty = page(a_chat().chat_id)
    assert (empty.items, empty.page_info.next_cursor, empty.page_info.prev_cursor) == ([], None, None)


def test_nobody_lists_the_attachments_of_anothers_chat_or_a_deleted_one(store: Store) -> None:
    chat = a_chat()
    a_document(chat)
    with pytest.raises(ChatNotFound):
        page(chat.chat_id, user=3)
    with pytest.raises(ChatNotFound):
        listing.attachments(a_call(a_caller(tenant=9)), CODEC, chat.chat_id, listing.Query(2, None))
    chats.delete(a_call(), chat.chat_id)
    with pytest.raises(ChatNotFound):
        page(chat.chat_id)


def test_a_cursor_is_of_its_chat_and_its_caller(store: Store) -> None:
    chat, other = a_chat(), a_chat()
    for _ in range(3):
        a_document(chat)
    cursor = page(chat.chat_id).page_info.next_cursor
    with pytest.raises(InvalidCursor):
        page(other.chat_id, cursor)
    with pytest.raises(InvalidCursor):
        page(chat.chat_id, cursor, user=3)
    with pytest.raises(InvalidRequest):
        listing.Query.of(_request("$filter=x"), 20, None)


def test_a_list_is_two_reads_side_by_side_and_one_for_the_pictures(store: Store) -> None:
    chat = a_chat()
    an_image(chat, b"a small picture")
    a_document(chat)
    with counted_calls() as calls:
        page(chat.chat_id)
    assert sorted(calls) == ["BatchGetItem", "BatchGetItem", "Query"]


def _request(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})
