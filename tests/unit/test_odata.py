"""The filter language: what it understands, how it compares, and that nothing else gets through."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.errors import InvalidRequest
from minichat.http.listing import CHAT_FIELDS, MESSAGE_FIELDS
from minichat.http.odata import (
    MAX_DEPTH,
    Both,
    Comparison,
    Either,
    Filter,
    Not,
    Order,
    Value,
    parse_filter,
    parse_orderby,
    parse_select,
)
from tests.support.domain.builders import an_id

ID = UUID(an_id(1))
MOMENT = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
instants = st.datetimes(datetime(1970, 1, 2), datetime(2900, 1, 1), timezones=st.just(UTC))
roles = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
comparisons = st.one_of(
    st.builds(
        Comparison, st.just("created_at"), st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le"]), st.tuples(instants)
    ),
    st.builds(Comparison, st.just("role"), st.sampled_from(["eq", "ne"]), st.tuples(roles)),
    st.builds(Comparison, st.just("role"), st.just("in"), st.lists(roles, min_size=1, max_size=4).map(tuple)),
    st.builds(Comparison, st.just("id"), st.sampled_from(["eq", "ne"]), st.tuples(st.uuids())),
    st.builds(Comparison, st.just("id"), st.just("in"), st.lists(st.uuids(), min_size=1, max_size=4).map(tuple)),
)
titles = st.builds(
    Comparison, st.just("title"), st.sampled_from(["contains", "startswith", "endswith", "eq", "ne"]), st.tuples(roles)
)
filters = st.recursive(
    comparisons,
    lambda terms: st.one_of(
        st.builds(Not, terms),
        st.lists(terms, min_size=2, max_size=3).map(lambda found: Both(tuple(found))),
        st.lists(terms, min_size=2, max_size=3).map(lambda found: Either(tuple(found))),
    ),
    max_leaves=8,
).map(Filter)


def message(at: datetime = MOMENT, role: str = "user", message_id: UUID = ID) -> dict[str, Value]:
    """What a filter looks at of a message."""
    return {"created_at": at, "role": role, "id": message_id}


@given(filters, instants, roles, st.uuids())
def test_the_canonical_text_of_a_filter_parses_to_one_that_means_the_same(
    wanted: Filter, at: datetime, role: str, one: UUID
) -> None:
    parsed = parse_filter(wanted.canonical(), MESSAGE_FIELDS)
    assert parsed.canonical() == parse_filter(parsed.canonical(), MESSAGE_FIELDS).canonical()
    for looked_at in (message(at, role, one), message()):
        assert parsed.matches(looked_at) == wanted.matches(looked_at)


@given(filters, instants, roles, st.uuids())
def test_what_matches_lies_within_the_filters_bounds(wanted: Filter, at: datetime, role: str, one: UUID) -> None:
    if wanted.matches(message(at, role, one)):
        assert wanted.not_before is None or wanted.not_before <= at
        assert wanted.not_after is None or at <= wanted.not_after


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        parsed = parse_filter(text, MESSAGE_FIELDS)
        assert parse_filter(parsed.canonical(), MESSAGE_FIELDS).canonical() == parsed.canonical()


@given(titles, roles)
@pytest.mark.holds("contract.filter-chats")
def test_a_question_about_a_title_is_answered_as_python_would(asked: Comparison, title: str) -> None:
    given_text = str(asked.values[0])
    expected = {
        "contains": given_text in title,
        "startswith": title.startswith(given_text),
        "endswith": title.endswith(given_text),
        "eq": title == given_text,
        "ne": title != given_text,
    }
    parsed = parse_filter(Filter(asked).canonical(), CHAT_FIELDS)
    assert parsed.matches({"title": title, "updated_at": MOMENT, "id": ID}) is expected[asked.op]


@pytest.mark.parametrize(
    "text",
    [
        "title eq 'Trip'",
        "title in ('trap','Trip')",
        *(f"{op}(title,'Trip')" for op in ("contains", "startswith", "endswith")),
    ],
)
@pytest.mark.holds("contract.filter-chats")
def test_titles_are_compared_case_by_case(text: str) -> None:
    for title, expected in (("Trip", True), ("trip", False), ("TRIP", False)):
        assert parse_filter(text, CHAT_FIELDS).matches({"title": title, "updated_at": MOMENT, "id": ID}) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("role eq 'user'", True),
        ("role ne 'user'", False),
        ("role in ('system', 'user')", True),
        ("( role eq 'user' and ( id eq 00000000-0000-4000-8000-000000000001 ) )", True),
        ("id eq '00000000-0000-4000-8000-000000000001'", True),
        ("id in (00000000-0000-4000-8000-000000000002)", False),
        ("created_at ge 2026-11-21T12:00:00Z and created_at lt 2026-11-21T12:00:01Z", True),
        ("created_at eq 2026-11-21T13:00:00.123456+01:00", True),
        ("created_at gt 2026-11-21T12:00:00.123456Z", False),
        ("created_at le 2026-11-21t12:00:00.123456z", True),
        ("role eq 'system' or role eq 'user'", True),
        ("role eq 'system' or role eq 'assistant'", False),
        ("not role eq 'user'", False),
        ("not (role eq 'system' or role eq 'assistant') and not role eq 'tool'", True),
        ("role eq 'user' or role eq 'user' and role eq 'system'", True),
        ("(role eq 'user' or role eq 'user') and role eq 'system'", False),
        ("not not role eq 'user'", True),
        ("   ", True),
    ],
)
@pytest.mark.holds("contract.filter")
def test_comparisons_are_of_values_and_not_of_spellings(text: str, expected: bool) -> None:
    assert parse_filter(text, MESSAGE_FIELDS).matches(message()) is expected


def test_a_quote_in_a_text_is_doubled() -> None:
    assert parse_filter("role eq 'it''s'", MESSAGE_FIELDS).matches(message(role="it's"))


def test_bounds_are_the_tightest() -> None:
    after = "created_at gt 2026-01-01T00:00:00Z and created_at ge 2026-02-01T00:00:00Z"
    wanted = parse_filter(f"{after} and created_at lt 2027-01-01T00:00:00Z", MESSAGE_FIELDS)
    assert (wanted.not_before, wanted.not_after) == (datetime(2026, 2, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def test_an_alternative_is_bounded_where_both_its_sides_are() -> None:
    early, late = "created_at gt 2026-01-01T00:00:00Z", "created_at gt 2026-02-01T00:00:00Z"
    wanted = parse_filter(f"{late} or {early}", MESSAGE_FIELDS)
    assert wanted.not_before == datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_filter(f"{late} or role eq 'user'", MESSAGE_FIELDS).not_before is None
    assert parse_filter(f"not {late}", MESSAGE_FIELDS).not_before is None


@pytest.mark.parametrize(
    "text",
    [
        "contains(role,'u')",
        "title eq 'x'",
        "role eq 'user' or",
        "or role eq 'user'",
        "not",
        "role not eq 'user'",
        "(role eq 'user'",
        "role eq 'user')",
        "role contains 'u'",
        "(" * 101 + "role eq 'user'" + ")" * 101,
        "not " * 101 + "role eq 'user'",
        " or ".join(["role eq 'user'"] * 101),
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_filter(text, MESSAGE_FIELDS)


@pytest.mark.parametrize("text", ["contains(updated_at,'1')", "contains(title)", "contains('a',title)", "title gt 'a'"])
def test_a_function_wants_a_text_field_and_a_text(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_filter(text, CHAT_FIELDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Order("created_at", False)),
        ("", Order("created_at", False)),
        ("created_at", Order("created_at", False)),
        ("  id   desc ", Order("id", True)),
        ("created_at asc", Order("created_at", False)),
    ],
)
def test_orders_are_by_time_or_id(text: str | None, expected: Order) -> None:
    assert parse_orderby(text) == expected
    assert parse_orderby(expected.canonical()) == expected


@pytest.mark.parametrize("text", ["role", "created_at DESC", "id desc asc", "created_at,id", "id;drop"])
def test_other_orders_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_orderby(text)


def test_a_selection_names_members() -> None:
    members = frozenset({"id", "role", "content"})
    assert parse_select(None, members) is None
    assert parse_select(" id , role", members) == frozenset({"id", "role"})


def test_an_offset_is_an_instant() -> None:
    east = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert parse_filter(f"created_at eq {east.isoformat()}", MESSAGE_FIELDS).matches(message())


def test_parentheses_may_be_nested_to_the_bound_and_no_deeper() -> None:
    around = MAX_DEPTH - 1  # the comparison is the innermost term
    deepest = "(" * around + "role eq 'user'" + ")" * around
    assert parse_filter(deepest, MESSAGE_FIELDS).matches(message())
    with pytest.raises(InvalidRequest):
        parse_filter(f"({deepest})", MESSAGE_FIELDS)
    assert parse_filter(f"role eq 'user' and {deepest}", MESSAGE_FIELDS).matches(message())
    with pytest.raises(InvalidRequest):
        parse_filter(f"role eq 'user' and ({deepest})", MESSAGE_FIELDS)
