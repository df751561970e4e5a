"""Any name that an issuer gives can be a part of a key: it comes back, and no two of them meet."""

import inspect
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minichat.domain.identity import AttachmentId, ChatId, MessageId, RequestId, TenantId, UserId
from minichat.domain.names import DEPLOYMENT, LONGEST, LONGEST_IN_KEY, from_key, in_key, in_path, said
from minichat.domain.usage import dedupe_key
from minichat.domain.usage_ledger import Total
from minichat.events import audit_sink
from minichat.events.bucket import Arrived
from minichat.events.sqs import GROUP_CHARACTERS, SqsMessage, _entry, attributes_of
from minichat.providers.identity import Asker, told
from minichat.settings import current
from minichat.storage import keys, scan
from minichat.storage.keys import Key
from minichat.storage.unreadable import Unreadable
from tests.support.domain.builders import an_id
from tests.support.providers.calls import a_prompt

HOSTILE = [
    *("#", "a#U#b", "a#C#b", "a/b", "a:b", "auth0|5f7c8ec7c33c6c004bbafe82", "a|b", "\0", "a b", "a+b", "%23", "a%23"),
    *("~", "~a", ".", "..", "../a", "A", "a", "É", "E\u0301", "\ufb01", "fi", "İ", "\u0131", "USAGE", "C#", "T#", "-"),
    *("U#a#TEMPORARY", "user_2abc", "ann@example.com", "💬", "名前", " ", "\t", "\ufffe", "\uffff"),
    *(one * LONGEST for one in ("a", "#", "é", "名", "\U0010ffff")),
]
names = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=LONGEST),
    st.text("#/:|\0ABab%~.UCT ", min_size=1, max_size=12),
)
CHAT, OTHER = ChatId(an_id(3)), RequestId(an_id(4))
ARGUMENTS: dict[str, Any] = {
    "chat_id": CHAT,
    "request_id": OTHER,
    "message_id": MessageId(OTHER),
    "attachment_id": AttachmentId(OTHER),
    "day": "2026-01-31",
    "month": "2026-01-01",
    "updated_at": datetime(2026, 1, 31, tzinfo=UTC),
    "at": datetime(2026, 1, 31, tzinfo=UTC),
}


@given(names)
def test_a_name_comes_back_from_a_key_and_what_leads_to_it_is_safe(name: str) -> None:
    part = in_key(name)
    assert from_key(part) == name
    assert re.fullmatch(r"[A-Za-z0-9_%~-][A-Za-z0-9_.%~-]*", part)
    assert len(part) <= LONGEST_IN_KEY


@given(st.lists(names, min_size=2, max_size=8, unique=True))
def test_no_two_names_have_one_key(some: list[str]) -> None:
    assert len({in_key(name) for name in some}) == len(some)


@given(st.lists(names, min_size=2, max_size=8, unique=True))
@example(["a/b", "a_2Fb", "_a_2Fb"])
@example(["~a", "_7Ea", "_.a", ".a"])
def test_no_two_names_have_one_folder_of_secrets_and_none_leads_elsewhere(some: list[str]) -> None:
    folders = {in_path(name) for name in some}
    assert len(folders) == len(some)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", folder) for folder in folders)


@pytest.mark.parametrize("name", ["L", "USAGE", "C", "T", "L#2026-01-31"])
def test_an_item_is_what_its_key_says_whatever_its_tenant_and_user_are_called(name: str) -> None:
    tenant_id, user_id = TenantId(name), UserId(name)
    neither = Key(keys.owner(tenant_id, user_id), "LIMITS"), keys.grant(tenant_id, an_id(1))
    assert list(scan.records(found=[{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in neither])) == []
    booked = keys.ledger_entry(tenant_id, "2026-01-31", "key"), keys.usage(tenant_id, "2026-01-31", user_id)
    found = list(scan.records(found=[{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in booked]))
    assert [type(one) for one in found] == [Unreadable, Total]  # the entry has none of its attributes here
    assert [keys.is_of_chat(pk) for pk, _ in neither] == [False, False]
    assert keys.chat_of(keys.chat(tenant_id, CHAT).pk) == (tenant_id, CHAT)


@given(names, names, names, names)
@example("a", "x#U#b", "a#U#x", "b")
@example("a/b", "c", "a", "b/c")
@example("a b", "c", "a", "b c")
@example("a-b", "c", "ab", "c")
def test_no_two_users_have_one_key_one_object_one_hash_or_one_dedupe_key(
    tenant: str, user: str, other_tenant: str, other_user: str
) -> None:
    if (tenant, user) == (other_tenant, other_user):
        return
    mine, others = _everything(tenant, user), _everything(other_tenant, other_user)
    assert not mine["user"] & others["user"]
    if tenant != other_tenant:
        assert not mine["tenant"] & others["tenant"]


def _everything(tenant: str, user: str) -> dict[str, set[object]]:
    tenant_id, user_id = TenantId(tenant), UserId(user)
    asked = told(a_prompt("hi"), Asker(tenant_id, user_id, CHAT, ""), "secret")
    return {
        "user": {
            keys.owner(tenant_id, user_id),
            keys.owner_of_temporary(tenant_id, user_id),
            keys.usage(tenant_id, "2026-01-31", user_id),
            asked.user,
        },
        "tenant": {
            keys.partition(tenant_id, CHAT),
            keys.prefix(tenant_id),
            keys.upload(tenant_id, CHAT, AttachmentId(OTHER)),
            dedupe_key(tenant_id, "t", OTHER),
            asked.metadata["tenant"],
        },
    }


def _makers() -> dict[str, Callable[..., Any]]:
    """Every function of storage/keys.py that makes a key or a part of one for a tenant."""
    found = inspect.getmembers(keys, inspect.isfunction)
    mine = {name: one for name, one in found if one.__module__ == keys.__name__}
    return {name: one for name, one in mine.items() if next(iter(inspect.signature(one).parameters)) == "tenant_id"}


@pytest.mark.parametrize("name", sorted(set(_makers()) - {"running_shard", "temporary_shard", "listed_at"}))
def test_every_key_of_a_tenant_holds_any_names_and_fits_dynamodb(name: str) -> None:
    maker = _makers()[name]
    longest = "\U0010ffff" * LONGEST
    made = []
    for tenant, user in [("a#U#b", "c#C#d"), (longest, longest), ("/:|\0", "~")]:
        given = {"tenant_id": TenantId(tenant), "user_id": UserId(user)}
        wanted = inspect.signature(maker).parameters
        asked = {
            one: given.get(one) or ARGUMENTS.get(one) or (3 if wanted[one].annotation is int else "text")
            for one in wanted
        }
        answer = maker(**asked)
        for key in answer if isinstance(answer, list) else [answer]:
            pk, sk = key if isinstance(key, Key) else (key, "")
            assert len(pk.encode()) <= 2048
            assert len(sk.encode()) <= 1024
            if pk.startswith("T#"):
                assert keys.tenant_of(pk) == tenant
                assert pk.startswith(keys.prefix(TenantId(tenant)))
            made.append((pk, sk))
    assert all(one != other for one, other in combinations(made, 2))


def test_keys_give_back_tenant_user_and_chat() -> None:
    for name in HOSTILE:
        tenant, user = TenantId(name), UserId(name[::-1])
        assert keys.chat_of(keys.partition(tenant, CHAT)) == (tenant, CHAT)
        assert keys.user_of(keys.owner(tenant, user)) == (tenant, user)
        assert keys.user_of_usage(*keys.usage(tenant, "2026-01-31", user)) == (tenant, "2026-01-31", user)
        assert keys.user_of_usage(*keys.usage(tenant, "2026-01-31")) == (tenant, "2026-01-31", None)


@pytest.mark.parametrize("part", ["%2", "%ff", "a#b", "%61", "%2f", "~", "~!", "~-1", "a~", "", "é", "~A"])
def test_what_no_name_becomes_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="."):
        from_key(part)


@given(st.uuids())
def test_what_earlier_versions_stored_of_uuids_keeps_its_keys(uuid: UUID) -> None:
    tenant, user = TenantId(str(uuid)), UserId(str(uuid))
    assert in_key(str(uuid)) == str(uuid)
    assert keys.chat(tenant, CHAT) == (f"T#{uuid}#C#{CHAT}", "CHAT")
    assert keys.quota(tenant, user, "2026-01-01") == (f"T#{uuid}#U#{uuid}", "QUOTA#2026-01-01")
    assert keys.usage(tenant, "2026-01-31", user) == (f"T#{uuid}#USAGE", f"2026-01-31#{uuid}")
    assert keys.upload(tenant, CHAT, AttachmentId(OTHER)) == f"{uuid}/{CHAT}/{OTHER}"
    assert dedupe_key(tenant, str(uuid), str(uuid)) == f"{uuid.hex}/{uuid.hex}/{uuid.hex}"


@given(st.uuids())
def test_a_uuid_has_one_spelling_however_it_came(uuid: UUID) -> None:
    for spelled in (str(uuid), str(uuid).upper(), uuid.hex, uuid.hex.upper(), uuid.urn, f"{{{uuid}}}"):
        assert said(spelled) == str(uuid)


@pytest.mark.parametrize(
    "name", ["ann", "Ann", "a-b", "0b8f4c1e-6a524a0e9a570f8d8f3f2c11", "0b8f_c1e6a524a0e9a570f8d8f3f2c11", " a"]
)
def test_what_is_no_uuid_stays_as_it_was_said(name: str) -> None:
    assert said(name) == name


@pytest.mark.parametrize("name", ["", "a" * (LONGEST + 1), DEPLOYMENT, "\ud800", "a\udfff"])
def test_what_can_be_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"characters|stands for|character"):
        said(name)


@given(names, names)
def test_a_message_of_any_tenant_is_one_that_sqs_takes(tenant: str, user: str) -> None:
    del user
    attributes = attributes_of("quota", an_id(1), tenant, dedupe_key(tenant, an_id(2), an_id(3)))
    for group in (keys.partition(TenantId(tenant), CHAT), in_key(tenant)):
        entry = _entry("0", SqsMessage(an_id(1), group, "{}", attributes), True, "")
        assert re.fullmatch(r"[!-~]+", entry["MessageGroupId"])
        assert len(entry["MessageGroupId"]) <= GROUP_CHARACTERS
        assert from_key(entry["MessageAttributes"]["tenant_id"]["StringValue"]) == tenant


@given(names)
def test_a_file_that_arrives_in_the_bucket_is_its_tenants(tenant: str) -> None:
    key = keys.upload(TenantId(tenant), CHAT, AttachmentId(OTHER))
    told = Arrived.model_validate({"Records": [{"s3": {"object": {"key": quote_plus(key)}}}]})
    assert list(told.attachments()) == [(TenantId(tenant), CHAT, AttachmentId(OTHER))]
    assert len(key.encode()) <= 1024


def test_an_audit_record_says_who_it_was_also_where_a_name_looks_like_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICHAT_AUDIT__SINK", str(tmp_path))
    current.cache_clear()
    secret, at = f"sk-{'a1B2' * 12}", datetime(2026, 1, 31, tzinfo=UTC)
    try:
        for number, tenant in enumerate(["../a", "名" * LONGEST, "#" * LONGEST, secret]):
            said = {"tenant_id": tenant, "actor_user_id": secret, "name": secret}
            assert audit_sink.write(json.dumps(said), an_id(number), at)
            assert not audit_sink.write(json.dumps(said), an_id(number), at)
            (mine,) = [one for one in audit_sink.records(tmp_path) if one["event_id"] == an_id(number)]
            assert (mine["tenant_id"], mine["actor_user_id"]) == (tenant, secret)
            assert mine["name"] == "[redacted:openai-key]"
    finally:
        current.cache_clear()


def test_a_name_is_packed_when_it_would_be_too_long_and_not_before() -> None:
    assert in_key("#" * (LONGEST_IN_KEY // 3)) == "%23" * (LONGEST_IN_KEY // 3)
    assert in_key("a" + "#" * (LONGEST_IN_KEY // 3)).startswith("~")
