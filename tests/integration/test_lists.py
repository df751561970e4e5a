"""Lists of chats by a filter: every chat that is wanted, once, however few they are among the others."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from minichat.domain.errors import InvalidCursor, InvalidRequest
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.http.response_models import ChatDetail, Page
from minichat.services import chats
from minichat.services.policy_in_force import Rules
from minichat.settings import Store
from tests.support.domain.builders import a_call, a_model, a_policy, unhurried

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
CODEC = CursorCodec("of these tests")


def made(*titles: str | None) -> list[str]:
    return [str(chats.create(a_call(), chats.NewChat(title), RULES).chat_id) for title in titles]


def page(filter_: str | None, cursor: str | None = None, limit: int = 2) -> Page[ChatDetail]:
    said = {} if filter_ is None else {"$filter": filter_}
    request = Request({"type": "http", "query_string": urlencode(said).encode(), "headers": []})
    return listing.chats(a_call(), CODEC, listing.Query.of(request, limit, cursor, filter_=filter_))


def pages(filter_: str | None, limit: int = 2) -> Iterator[Page[ChatDetail]]:
    cursor = None
    while True:
        one = page(filter_, cursor, limit)
        yield one
        cursor = one.page_info.next_cursor
        if cursor is None:
            return


def ids(found: Iterator[Page[ChatDetail]]) -> list[str]:
    return [str(chat.id) for one in found for chat in one.items]


@pytest.mark.parametrize("looked_at", [1, 7, 20, 1000])
@pytest.mark.holds("contract.filter-1000")
def test_few_chats_among_many_are_all_found_and_each_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", looked_at)
    everything = made(*(f"Plan {number}" if number % 9 == 4 else f"Other {number}" for number in range(30)), None)
    wanted = [everything[number] for number in range(30) if number % 9 == 4][::-1]
    assert ids(pages("contains(title,'Plan')")) == wanted
    assert ids(pages("not contains(title,'Plan')", limit=5)) == [one for one in everything[::-1] if one not in wanted]
    assert ids(pages("title eq ''")) == everything[-1:]
    assert ids(pages("contains(title,'nothing')")) == []


@pytest.mark.parametrize("looked_at", [4, 20, 100])
@pytest.mark.holds("contract.filter-1000")
def test_a_page_is_the_fruit_of_looking_at_so_many_chats(
    store: Store, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", looked_at)
    made("Plan", *("Other" for _ in range(45)))
    needed = 1
    one = page("title eq 'Plan'", limit=1)
    while not one.items:
        one = page("title eq 'Plan'", one.page_info.next_cursor, limit=1)
        needed += 1
    assert needed == -(-46 // looked_at)


def test_a_filtered_list_is_travelled_back_to_where_it_began(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 4)
    made(*(f"Plan {number}" if number % 5 == 0 else "Other" for number in range(40)))
    there = list(pages("startswith(title,'Plan')"))
    found, cursor = ids(iter(there[-1:])), there[-1].page_info.prev_cursor
    while cursor is not None:
        back = page("startswith(title,'Plan')", cursor)
        found = [*ids(iter([back])), *found]
        cursor = back.page_info.prev_cursor
    assert found == ids(iter(there))


def test_a_cursor_brings_its_filter_and_fits_no_other(store: Store) -> None:
    made("Plan a", "Other", "Plan b", "Plan c")
    cursor = page("contains(title,'Plan')").page_info.next_cursor
    assert [chat.title for chat in page(None, cursor).items] == ["Plan a"]
    with pytest.raises(InvalidCursor):
        page("contains(title,'Other')", cursor)


def test_time_and_id_narrow_a_list(store: Store) -> None:
    first, second, third = made("a", "b", "c")
    times = {str(chat.id): chat.updated_at for chat in page(None, limit=10).items}
    since = times[second].isoformat().replace("+00:00", "Z")
    assert ids(pages(f"updated_at ge {since}")) == [third, second]
    assert ids(pages(f"updated_at lt {since} or id eq {third}")) == [third, first]
    assert ids(pages(f"id in ({first},{third}) and not title eq 'a'")) == [third]


@pytest.mark.parametrize("wrong", ["created_at gt 2026-01-01T00:00:00Z", "role eq 'user'", "contains(id,'1')", "title"])
def test_a_list_of_chats_knows_its_own_fields_alone(store: Store, wrong: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        page(wrong)
    assert refused.value.errors[0].field == "$filter"
