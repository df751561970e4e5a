"""Ids that sort as their instants do."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.identity import Call, Caller, TenantId, UserId, from_micros, instant_of, micros, uuid7, uuid7_floor

instants = st.datetimes(datetime(1971, 1, 1), datetime(5000, 1, 1), timezones=st.just(UTC))
bits = st.integers(0, 2**80)


@given(instants, st.integers(1, 10**12), bits, bits)
def test_a_later_instant_by_even_a_microsecond_gives_a_larger_id(at: datetime, later: int, one: int, two: int) -> None:
    assert str(uuid7(at, one)) < str(uuid7(at + timedelta(microseconds=later), two))


@given(instants, bits)
def test_an_id_is_a_version_7_uuid_at_or_above_its_instants_floor(at: datetime, random_bits: int) -> None:
    made = uuid7(at, random_bits)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert uuid7_floor(at) <= made


@given(instants, bits)
def test_an_id_tells_its_instant_to_the_microsecond(at: datetime, random_bits: int) -> None:
    assert instant_of(uuid7(at, random_bits)) == at


@given(instants)
def test_microseconds_keep_the_instant_exactly(at: datetime) -> None:
    assert from_micros(micros(at)) == at


@pytest.mark.parametrize(("ends_in", "seconds"), [(None, 60), (100, 60), (70, 60), (69, 59), (10, 0), (3, 0)])
def test_a_stream_ends_ten_seconds_before_its_call_must(ends_in: int | None, seconds: float) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ends_at = None if ends_in is None else now + timedelta(seconds=ends_in)
    call = Call(Caller(TenantId("acme"), UserId("ann")), now, lambda _: "", ends_at=ends_at)
    assert call.seconds_left(at_most=60) == seconds
