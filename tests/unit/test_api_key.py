"""How an API key is written: it says whose it is, and a typo shows."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.actions import ROLES
from minichat.domain.api_key import LONGEST_KEY, LONGEST_LIFE, RANDOM_BYTES, SERVICE, NewApiKey, presented, written
from minichat.domain.errors import InvalidRequest
from minichat.domain.identity import TenantId
from minichat.domain.names import LONGEST, said
from minichat.domain.redaction import redact_text
from tests.support.domain.builders import NOW, an_id

randoms = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=LONGEST)
tenants = st.uuids().map(str) | texts.map(said)
KEY = written(TenantId(an_id(1)), bytes(range(RANDOM_BYTES)))


@given(tenants, randoms)
def test_a_key_says_whose_it_is_in_letters_that_one_click_selects(tenant: str, random: bytes) -> None:
    text = written(TenantId(tenant), random)
    assert re.fullmatch(r"mck_[a-z2-7]+_[a-z2-7]{58}", text)
    assert len(text) <= LONGEST_KEY
    assert presented(text).tenant_id == tenant
    assert len(presented(text).key_id) == 16


@given(tenants, tenants, randoms, randoms)
def test_two_keys_are_never_one(tenant: str, other: str, random: bytes, another: bytes) -> None:
    one, two = presented(written(TenantId(tenant), random)), presented(written(TenantId(other), another))
    if (tenant, random) != (other, another):
        assert one.digest != two.digest
    if (tenant, random[:10]) != (other, another[:10]):
        assert (one.tenant_id, one.key_id) != (two.tenant_id, two.key_id)


@given(st.integers(4, len(KEY) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567_A0"))
def test_one_wrong_letter_shows_without_any_read(at: int, letter: str) -> None:
    typo = KEY[:at] + letter + KEY[at + 1 :]
    if typo != KEY:
        with pytest.raises(ValueError, match=r"API key|typo"):
            presented(typo)


@pytest.mark.parametrize(
    "text", ["", "mck_", "mck_a_b", KEY.upper(), f" {KEY}", f"{KEY}a", KEY[:-1], KEY + "\n", "mck__"]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"API key|typo"):
        presented(text)


@pytest.mark.parametrize("tenant", ["a", "é", "\U0010ffff" * LONGEST])
def test_a_key_can_be_of_the_shortest_and_of_the_longest_tenant(tenant: str) -> None:
    assert presented(written(TenantId(tenant), bytes(RANDOM_BYTES))).tenant_id == tenant


def test_a_key_that_somebody_pastes_into_a_chat_is_not_in_the_audit_trail() -> None:
    assert redact_text(f"use {KEY}, please") == "use [redacted:minichat-key], please"


def test_what_an_administrator_asks_for_is_checked_field_by_field() -> None:
    NewApiKey("CRM", ("chat:create",), NOW + LONGEST_LIFE, "crm-sync").checked(NOW)
    wrong = NewApiKey(" ", ("chat:create", "chat:shout"), NOW, "a b")
    with pytest.raises(InvalidRequest) as refused:
        wrong.checked(NOW)
    assert {one.field for one in refused.value.errors} == {"name", "scopes", "expires_at", "account"}
    for asked in (
        NewApiKey("x" * 101, ("chat:create",), NOW + timedelta(days=1)),
        NewApiKey("CRM", (), NOW + timedelta(days=1)),
        NewApiKey("CRM", ("chat:create",), NOW + LONGEST_LIFE + timedelta(seconds=1)),
    ):
        with pytest.raises(InvalidRequest):
            asked.checked(NOW)


def test_service_accounts_are_told_from_people_and_services_have_a_role() -> None:
    assert SERVICE == "mck:"
    assert "service" in ROLES
