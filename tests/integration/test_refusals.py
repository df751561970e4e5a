"""What a refusal by a decision leaves behind: one audit event per user, decision and minute, whatever comes."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from minichat.domain.errors import (
    ChatError,
    Forbidden,
    ImagesDisabled,
    QuotaExceeded,
    ServiceUnavailable,
    UsedUp,
    WebSearchDisabled,
)
from minichat.http import refusal_notes
from minichat.http.app import create_app
from minichat.local.issuer import Issuer, as_uuid
from minichat.services import refusal_audit
from minichat.services.policy_in_force import SHIPPED_POLICY
from minichat.settings import Settings, Store
from minichat.storage import outbox
from tests.conftest import fresh_tables
from tests.support import blocked
from tests.support.domain.builders import NOW, a_caller, an_id
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables

# FastAPI's own, of every body; a process that is not a test does not see it.
pytestmark = pytest.mark.filterwarnings("ignore:The 'alias' attribute")

PREFIX = "/mini-chat/v1"
MESSAGE = {"content": "hello", "web_search": {"enabled": True}}


def stored(store: Store) -> list[dict[str, Any]]:
    return [json.loads(item["payload"]) for item in Tables.of(store).outbox if item["type"] == "decision_refused"]


async def events(store: Store, count: int) -> list[dict[str, Any]]:
    """The events, once there are so many: an answer does not wait for one that takes long."""
    async with asyncio.timeout(120):
        while len(found := stored(store)) < count:  # noqa: ASYNC110  threads write them
            await asyncio.sleep(0.05)
    return found


Connect = Callable[..., httpx2.AsyncClient]


@pytest.fixture
async def connect(tmp_path: Path, store: Store) -> AsyncIterator[Connect]:
    """Clients of an app with these settings and switches, each with a token that has these claims."""
    started: list[httpx2.AsyncClient] = []

    def to(user: str = "ann", switches: dict[str, bool] | None = None, **settings: Any) -> httpx2.AsyncClient:
        policy = json.loads(SHIPPED_POLICY.read_text()) | {"kill_switches": switches or {}}
        (tmp_path / "policy.json").write_text(json.dumps(policy))
        issuer = Issuer(tmp_path)
        auth = {"jwks": str(issuer.jwks_file)} | settings.pop("auth", {})
        secret = {"cursor_secret": "long enough, and nobody else's"}
        values = secret | {"store": store, "auth": auth, "policy_file": tmp_path / "policy.json"} | settings
        transport = httpx2.ASGITransport(create_app(Settings.model_validate(values)))
        token = issuer.token("acme", user, now=datetime.now(UTC), lifetime=timedelta(hours=1))
        headers = {"authorization": f"Bearer {token}"}
        started.append(httpx2.AsyncClient(transport=transport, base_url=f"http://test{PREFIX}", headers=headers))
        return started[-1]

    yield to
    for client in started:
        await client.aclose()


@pytest.fixture
def one_minute(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The instant that refusals are told at: its last element."""
    instants = [NOW]
    monkeypatch.setattr(refusal_notes, "now", lambda: instants[-1])
    return instants


async def a_chat(client: httpx2.AsyncClient) -> str:
    return str((await client.post("/chats", json={})).json()["id"])


async def test_a_user_without_a_licence_is_told_of_once_in_a_minute(
    connect: Connect, store: Store, one_minute: list[datetime]
) -> None:
    client = connect(auth={"features_claim": "features", "required_feature": "another"})
    chat_id = an_id(7)
    for _ in range(3):
        answer = await client.get(f"/chats/{chat_id}")
        assert (answer.status_code, answer.json()["code"]) == (403, "feature_not_licensed")
    (event,) = await events(store, 1)
    assert (event["decision"], event["code"]) == ("license", "feature_not_licensed")
    assert (event["tenant_id"], event["actor_user_id"], event["chat_id"]) == (as_uuid("acme"), as_uuid("ann"), chat_id)
    one_minute.append(NOW + timedelta(minutes=1))
    await client.get("/chats")
    assert len(await events(store, 2)) == 2


async def test_a_used_up_quota_is_told_of_with_its_scope(
    connect: Connect, store: Store, one_minute: list[datetime]
) -> None:
    client = connect(quota={"web_search_daily_quota": 0, "uploads_daily_quota": 0})
    chat_id = await a_chat(client)
    for _ in range(2):
        assert (await client.post(f"/chats/{chat_id}/messages:stream", json=MESSAGE)).status_code == 429
    file = {"filename": "a.pdf", "content_type": "application/pdf", "size_bytes": 9}
    answer = await client.post(f"/chats/{chat_id}/attachments/uploads", json=file)
    assert (answer.status_code, answer.json()["quota_scope"]) == (429, "uploads")
    told = {
        (one["decision"], one["quota_scope"], one["quota_period"], one["chat_id"]) for one in await events(store, 2)
    }
    assert told == {("quota", "web_search", "daily", chat_id), ("quota", "uploads", "daily", chat_id)}
    assert len(stored(store)) == 2


async def test_a_kill_switch_is_told_of_for_each_user(
    connect: Connect, store: Store, one_minute: list[datetime]
) -> None:
    for user in ("ann", "bob"):
        client = connect(user, {"disable_web_search": True})
        answer = await client.post(f"/chats/{await a_chat(client)}/messages:stream", json=MESSAGE)
        assert (answer.status_code, answer.json()["code"]) == (400, "web_search_disabled")
    found = {(one["actor_user_id"], one["decision"], one["code"]) for one in await events(store, 2)}
    assert found == {(as_uuid(user), "kill_switch", "web_search_disabled") for user in ("ann", "bob")}


async def test_what_is_no_decision_leaves_no_event(connect: Connect, store: Store, one_minute: list[datetime]) -> None:
    client = connect()
    assert (await client.get(f"/chats/{an_id(8)}")).status_code == 404
    assert (await client.post("/chats", json={"title": 3})).status_code == 400
    assert stored(store) == []


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (QuotaExceeded(UsedUp("tokens", "total", "daily")), "quota"),
        (ImagesDisabled(), "kill_switch"),
        (WebSearchDisabled(), "kill_switch"),
        (Forbidden(), "authorization"),
    ],
)
def test_every_decision_has_its_word(error: ChatError, decision: str | None) -> None:
    found = refusal_audit.of_error(error, a_caller(), None)
    assert (None if found is None else found.decision) == decision


def test_instances_that_share_nothing_leave_one_event_of_the_same_minute(any_engine: str) -> None:
    store = fresh_tables(any_engine)
    refusal = refusal_audit.Refusal(a_caller(), "quota", "quota_exceeded", limit=UsedUp("tokens", "total", "daily"))
    start = threading.Barrier(16)

    def one(number: int) -> bool:
        start.wait(PATIENCE)
        return refusal_audit.RefusalTeller().write(refusal, NOW + timedelta(seconds=number), "")

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(16))).count(True) == 1
    others = (
        replace(refusal, limit=UsedUp("tokens", "total", "monthly")),
        replace(refusal, limit=UsedUp("web_search", None, "daily")),
        replace(refusal, decision="kill_switch", code="images_disabled", limit=None),
    )
    assert [refusal_audit.RefusalTeller().write(other, NOW, "") for other in others] == [True] * 3
    assert len(stored(store)) == 4


def test_a_process_writes_no_event_that_it_knows_to_be_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told, refusal = refusal_audit.RefusalTeller(), refusal_audit.Refusal(a_caller(), "kill_switch", "images_disabled")
    assert told.write(refusal, NOW, "")
    monkeypatch.setattr(outbox, "once", None)
    assert not told.write(refusal, NOW, "")


async def test_a_store_that_hangs_holds_no_refusal_up_and_is_asked_by_few(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = [], threading.Event()

    def hangs(*_: object) -> bool:
        asked.append(1)
        blocked.until(go_on)
        raise ServiceUnavailable

    monkeypatch.setattr(outbox, "once", hangs)
    monkeypatch.setattr(refusal_audit, "AT_ONCE", 2)
    client = connect(auth={"features_claim": "features", "required_feature": "another"})
    for path in ("/chats", "/models"):
        began = time.monotonic()
        assert (await client.get(path)).status_code == 403
        assert time.monotonic() - began >= refusal_audit.WAIT_SECONDS
    # Nobody waits for what is not even begun.
    monkeypatch.setattr(refusal_audit, "WAIT_SECONDS", 60)
    for _ in range(5):
        assert (await client.get("/chats")).status_code == 403
    assert len(asked) == 2
    go_on.set()


async def test_an_event_that_cannot_be_stored_fails_no_refusal(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> bool:
        raise ServiceUnavailable

    monkeypatch.setattr(outbox, "once", down)
    client = connect(auth={"features_claim": "features", "required_feature": "another"})
    assert (await client.get("/chats")).json()["code"] == "feature_not_licensed"
