"""Cursors that cannot be altered, and pages that know their neighbours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.errors import InvalidCursor
from minichat.http.paging import Cursor, CursorCodec, cut, fits

CODEC = CursorCodec("a secret")
cursors = st.builds(Cursor, st.text(), st.booleans(), st.text(), st.text())


@given(cursors, st.text())
def test_a_cursor_comes_back_as_it_was(cursor: Cursor, scope: str) -> None:
    assert CODEC.decode(CODEC.encode(cursor, scope), scope) == cursor


@given(cursors, st.data())
@pytest.mark.holds("contract.cursor")
def test_a_cursor_with_any_character_changed_is_refused(cursor: Cursor, data: st.DataObject) -> None:
    text = CODEC.encode(cursor, "scope")
    at = data.draw(st.integers(0, len(text) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ é"
    other = data.draw(st.sampled_from([character for character in alphabet if character != text[at]]))
    with pytest.raises(InvalidCursor):
        CODEC.decode(text[:at] + other + text[at + 1 :], "scope")


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        CODEC.decode(text, "scope")


@pytest.mark.parametrize("scope", ["other", "", "scop", "scope "])
def test_a_cursor_of_another_scope_or_deployment_is_refused(scope: str) -> None:
    text = CODEC.encode(Cursor("x"), "scope")
    with pytest.raises(InvalidCursor):
        CODEC.decode(text, scope)
    with pytest.raises(InvalidCursor):
        CursorCodec("another secret").decode(text, "scope")


def test_a_deployment_without_a_secret_does_not_start() -> None:
    with pytest.raises(ValueError, match="cursor_secret"):
        CursorCodec("")


def test_a_cursor_fits_the_query_it_was_made_for_and_one_that_says_nothing() -> None:
    cursor = Cursor("x", order="id asc", filter="role eq 'user'")
    assert fits(cursor, order=None, filter_=None) is cursor
    assert fits(cursor, order="id asc", filter_="role eq 'user'") is cursor
    with pytest.raises(InvalidCursor):
        fits(cursor, order="id desc", filter_=None)
    with pytest.raises(InvalidCursor):
        fits(cursor, order=None, filter_="")


@given(st.integers(0, 30), st.integers(1, 10))
def test_pages_of_any_size_cover_a_list_in_both_directions(length: int, limit: int) -> None:
    rows = [f"{number:02d}" for number in range(length)]

    def travel(cursor: Cursor | None) -> list[str]:
        if cursor is None:
            return rows[: limit + 1]
        if cursor.backward:
            return [row for row in reversed(rows) if row < cursor.position][: limit + 1]
        return [row for row in rows if row > cursor.position][: limit + 1]

    seen: list[str] = []
    page = cut(travel(None), limit, None, lambda row: row)
    assert page.prev_position is None
    while True:
        seen += page.rows
        if page.next_position is None:
            break
        cursor = Cursor(page.next_position)
        page = cut(travel(cursor), limit, cursor, lambda row: row)
    assert seen == rows
    back = list(page.rows)
    while page.prev_position is not None:
        cursor = Cursor(page.prev_position, backward=True)
        page = cut(travel(cursor), limit, cursor, lambda row: row)
        back = [*page.rows, *back]
    assert back == rows
