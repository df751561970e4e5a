"""The filter language: what it understands, how it compares, and that nothing else gets through."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.errors import InvalidRequest
from minichat.http.odata import Comparison, Filter, Order, parse_filter, parse_orderby, parse_select
from tests.builders import an_id

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
filters = st.lists(comparisons, max_size=5).map(lambda found: Filter(tuple(found)))


@given(filters)
def test_the_canonical_text_of_a_filter_parses_to_the_same_filter(wanted: Filter) -> None:
    parsed = parse_filter(wanted.canonical())
    assert parsed.canonical() == wanted.canonical()
    assert {c.canonical(): c for c in parsed.comparisons} == {c.canonical(): c for c in wanted.comparisons}


@given(filters, instants, roles, st.uuids())
def test_what_matches_lies_within_the_filters_bounds(wanted: Filter, at: datetime, role: str, one: UUID) -> None:
    if wanted.matches(at, role, one):
        assert wanted.not_before is None or wanted.not_before <= at
        assert wanted.not_after is None or at <= wanted.not_after


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        parsed = parse_filter(text)
        assert parse_filter(parsed.canonical()).canonical() == parsed.canonical()


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
        ("   ", True),
    ],
)
def test_comparisons_are_of_values_and_not_of_spellings(text: str, expected: bool) -> None:
    assert parse_filter(text).matches(MOMENT, "user", ID) is expected


def test_a_quote_in_a_text_is_doubled() -> None:
    assert parse_filter("role eq 'it''s'").matches(MOMENT, "it's", ID)


def test_bounds_are_the_tightest() -> None:
    after = "created_at gt 2026-01-01T00:00:00Z and created_at ge 2026-02-01T00:00:00Z"
    wanted = parse_filter(f"{after} and created_at lt 2027-01-01T00:00:00Z")
    assert (wanted.not_before, wanted.not_after) == (datetime(2026, 2, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


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
    assert parse_filter(f"created_at eq {east.isoformat()}").matches(MOMENT, "user", ID)
