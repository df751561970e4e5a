"""API keys at the edge of a request: whom they let in, for how long, at what cost, and where they never stand."""

import asyncio
import base64
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from minichat.domain.access_errors import ApiKeyNotFound
from minichat.domain.api_key import RANDOM_BYTES, NewApiKey, written
from minichat.domain.errors import InvalidRequest, Unauthenticated
from minichat.domain.identity import Call, Caller, TenantId, UserId
from minichat.http import auth
from minichat.http.app import create_app
from minichat.http.auth import Authenticator
from minichat.local.issuer import Issuer, as_uuid
from minichat.moment import new_id, now
from minichat.observability import logger
from minichat.services import api_keys
from minichat.services.api_keys import MadeKey
from minichat.settings import Settings, Store
from minichat.storage.items import connection
from tests.conftest import fresh_tables
from tests.support.patience import PATIENCE
from tests.support.storage.faults import counted_calls

DAY = timedelta(days=1)
SCOPES = ("chat:create", "chat:list")


@pytest.fixture(scope="module")
def tables(engine: str) -> Store:
    return fresh_tables(engine)


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is remembered, except where a test is about that."""
    monkeypatch.setattr(auth, "KEY_SECONDS", 0)


@pytest.fixture
def settings(tables: Store, tmp_path: Path) -> Settings:
    said = {"store": tables, "cursor_secret": "secret", "auth": {"jwks": str(Issuer(tmp_path).jwks_file)}}
    return Settings.model_validate(said)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(settings))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test/mini-chat/v1") as started:
        yield started


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """All that was logged and printed since the test began."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(repr(vars(record)) + logging.Formatter().format(record))

    handler, edge = Kept(), logging.getLogger(logger.name)
    edge.addHandler(handler)
    yield lambda: "".join([*lines, *capsys.readouterr()])
    edge.removeHandler(handler)


def an_administrator(tenant: str | None = None) -> Call:
    caller = Caller(TenantId(tenant or secrets.token_hex(5)), UserId("boss|1"), roles=frozenset({"tenant_admin"}))
    return Call(caller, now(), new_id, "trace")


def made(by: Call, **asked: Any) -> MadeKey:
    wanted = NewApiKey("CRM", SCOPES, by.now + DAY)
    return api_keys.create(by, replace(wanted, **asked), secrets.token_bytes(RANDOM_BYTES))


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def a_request(text: str) -> Request:
    return Request({"type": "http", "headers": [(b"authorization", f"Bearer {text}".encode())]})


def stored(table: str) -> list[dict[str, Any]]:
    """Every item of a table."""
    return list(connection().dispatch("Scan", {"TableName": table})["Items"])


# FastAPI's own, of every body; a process that is not a test does not see it.
@pytest.mark.filterwarnings("ignore:The 'alias' attribute")
@pytest.mark.parametrize("tenant", [None, as_uuid("acme"), "a#U#b|名"])
async def test_a_key_lets_its_service_in_and_it_is_that_tenants(
    client: httpx2.AsyncClient, settings: Settings, tenant: str | None
) -> None:
    boss = an_administrator(tenant)
    key, text = made(boss, account="crm")
    caller = await Authenticator(settings.auth).caller(a_request(text))
    assert (caller.tenant_id, caller.user_id) == (boss.caller.tenant_id, "mck:crm")
    assert (caller.subject_type, caller.roles) == ("system", frozenset({"service"}))
    assert caller.scopes == frozenset(SCOPES) == frozenset(key.scopes)
    chat = await client.post("/chats", json={"title": "by a service"}, headers=bearer(text))
    assert chat.status_code == 201, chat.text
    other = made(boss, account="crm").text  # as when keys are rotated
    for mine in (text, other):
        listed = (await client.get("/chats", headers=bearer(mine))).json()["items"]
        assert [one["id"] for one in listed] == [chat.json()["id"]]
    path = f"/chats/{chat.json()['id']}"
    stranger = made(boss, scopes=(*SCOPES, "chat:read")).text
    assert (await client.get(path, headers=bearer(stranger))).status_code == 404
    # Without the scope nothing is read at all: the same whether there is such a chat or not.
    for mine in (text, made(boss).text):
        assert (await client.get(path, headers=bearer(mine))).status_code == 403


async def test_only_callers_with_a_key_cost_a_read_more(
    client: httpx2.AsyncClient, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss = an_administrator()
    text = made(boss).text
    issued = Issuer(tmp_path).token("acme", "ann", now=datetime.now(UTC), lifetime=DAY, auth=settings.auth)

    async def calls(of: str) -> list[str]:
        with counted_calls() as counted:
            assert (await client.get("/chats", headers=bearer(of))).status_code == 200
        return [one for one in counted if one != "UpdateItem"]

    for one in (text, issued):
        await calls(one)  # looks at the policy, and notes the key's use
    await asyncio.sleep(0)
    ordinary = await calls(issued)
    assert sorted(await calls(text)) == sorted([*ordinary, "BatchGetItem"])
    monkeypatch.setattr(auth, "KEY_SECONDS", 4)
    await calls(text)
    assert await calls(text) == ordinary


async def test_what_is_wrong_with_a_key_is_in_the_log_and_told_only_to_its_owner(
    client: httpx2.AsyncClient, said: Callable[[], str]
) -> None:
    boss = an_administrator()
    key, text = made(boss)
    stranger = written(boss.caller.tenant_id, bytes(RANDOM_BYTES))
    forged = written(boss.caller.tenant_id, _id_of(text) + secrets.token_bytes(32))
    soon = made(boss, expires_at=boss.now + timedelta(milliseconds=1)).text
    revoked = made(boss)
    api_keys.revoke(boss, revoked.key.key_id)
    expected = {
        text[:-1] + ("a" if text[-1] != "a" else "b"): ("malformed", "A valid bearer token is required."),
        stranger: ("key", "A valid bearer token is required."),
        forged: ("signature", "A valid bearer token is required."),
        soon: ("expired", "The API key has expired."),
        revoked.text: ("revoked", "The API key was revoked."),
    }
    assert (await client.get("/chats", headers=bearer(text))).status_code == 200
    told = ""
    for given, (reason, detail) in expected.items():
        answer = await client.get("/chats", headers=bearer(given))
        assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (401, "unauthenticated", detail)
        logged = said()
        assert f"'reason': '{reason}'" in logged
        told += logged + answer.text
    # Not a word of any secret, and nothing by which to find the key.
    for given in (text, *expected):
        assert given.rpartition("_")[2] not in told
    assert key.key_id not in told


async def test_no_key_is_in_the_tables_and_the_events_say_who_made_and_revoked_it(tables: Store) -> None:
    boss = an_administrator()
    key, text = made(boss)
    api_keys.revoke(boss, key.key_id)
    api_keys.revoke(boss, key.key_id)
    items = stored(tables.conversation_table) + stored(tables.outbox_table)
    assert text.rpartition("_")[2] not in repr(items)
    payloads = [json.loads(one["payload"]["S"]) for one in stored(tables.outbox_table)]
    mine = [one for one in payloads if one.get("api_key_id") == key.key_id]
    assert sorted(one["event_type"] for one in mine) == ["api_key_create", "api_key_revoke"]
    assert {one["actor_user_id"] for one in mine} == {"boss|1"}
    assert {(one["tenant_id"], one["name"], one["account"]) for one in mine} == {
        (boss.caller.tenant_id, "CRM", key.key_id)
    }


async def test_a_revocation_is_in_force_within_five_seconds_in_a_process_that_knows_the_key(
    settings: Settings, tables: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del tables
    monkeypatch.undo()  # as in the product
    assert auth.KEY_SECONDS < 5
    monkeypatch.setattr(auth, "KEY_SECONDS", 0.4)
    boss = an_administrator()
    key, text = made(boss)
    authenticator = Authenticator(settings.auth)
    await authenticator.caller(a_request(text))
    api_keys.revoke(boss, key.key_id)
    await authenticator.caller(a_request(text))  # it still knows the key
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await authenticator.caller(a_request(text))
            except Unauthenticated as error:
                refused = error
                break
            await asyncio.sleep(0.02)
    assert refused.reason == "revoked"


async def test_the_last_use_is_noted_once_in_five_minutes_and_no_request_waits_for_it(
    settings: Settings, tables: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del tables
    boss = an_administrator()
    key, text = made(boss)
    processes = [Authenticator(settings.auth) for _ in range(8)]
    await asyncio.gather(*(one.caller(a_request(text)) for one in processes))
    await asyncio.gather(*(task for one in processes for task in one._noting))
    (first,) = [one.last_used_at for one in api_keys.listed(boss)]
    assert first is not None
    await processes[0].caller(a_request(text))
    assert not processes[0]._noting
    later = first + api_keys.NOTED_AGAIN + timedelta(seconds=1)
    monkeypatch.setattr(auth, "now", lambda: later)
    await processes[0].caller(a_request(text))
    await asyncio.gather(*processes[0]._noting)
    assert [one.last_used_at for one in api_keys.listed(boss)] == [later]
    assert key.last_used_at is None


def test_an_administrator_has_the_keys_of_their_own_tenant_only(tables: Store) -> None:
    del tables
    boss, other = an_administrator(), an_administrator()
    older = made(boss, name=" older ").key
    newer = made(replace(boss, now=boss.now + timedelta(seconds=1)), name="newer").key
    assert [one.name for one in api_keys.listed(boss)] == ["newer", "older"]
    assert api_keys.listed(other) == []
    for key_id in (older.key_id, "a" * 16, "", "#", "é" * 9999):
        with pytest.raises(ApiKeyNotFound):
            api_keys.revoke(other, key_id)
    assert api_keys.revoke(boss, older.key_id).revoked_by == boss.caller.user_id
    assert [one.revoked_at is None for one in api_keys.listed(boss)] == [True, False]
    assert newer.created_by == boss.caller.user_id
    with pytest.raises(InvalidRequest):
        made(boss, scopes=("no:action",))


def test_of_many_who_revoke_a_key_one_does(tables: Store) -> None:
    boss = an_administrator()
    key = made(boss).key
    with ThreadPoolExecutor(8) as pool:
        calls = [replace(boss, now=boss.now + timedelta(milliseconds=number)) for number in range(8)]
        revoked = list(pool.map(lambda call: api_keys.revoke(call, key.key_id).revoked_at, calls))
    assert len(set(revoked)) == 1
    events = [one for one in stored(tables.outbox_table) if key.key_id in one["payload"]["S"]]
    assert [one["type"]["S"] for one in events].count("api_key_revoke") == 1


def _id_of(text: str) -> bytes:
    """The ten bytes of a key's id."""
    locator = text.split("_")[1].upper()
    return base64.b32decode(locator + "=" * (-len(locator) % 8))[-10:]
