"""Who may do what, over HTTP, with tokens that name roles; and what of it the audit trail keeps."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from minichat import greenlets, moment
from minichat.domain.access_errors import AuthorizationConflict, AuthorizationInvalid, GrantNotFound
from minichat.domain.actions import Action
from minichat.domain.errors import (
    ChatNotFound,
    Forbidden,
    InvalidRequest,
)
from minichat.domain.identity import Call, Caller, TenantId, UserId
from minichat.http.app import create_app
from minichat.local.issuer import Issuer, as_uuid
from minichat.services import authorization, grants
from minichat.services.decision_point import Asked, DecisionPoint
from minichat.services.finalize import finalize
from minichat.services.stream_resume import follow, resume
from minichat.settings import Settings, Store
from minichat.storage.items import OutboxItem
from tests.conftest import fresh_tables
from tests.support.domain.builders import an_id
from tests.support.services.scenes import ENDING, RULES, World

# FastAPI hands an alias on to pydantic in a place where pydantic says that it does nothing there.
pytestmark = pytest.mark.filterwarnings("ignore:The 'alias' attribute with value")

PREFIX = "/mini-chat/v1"
HOUR = timedelta(hours=1)
OURS, THEIRS = "ours", "theirs"


@pytest.fixture(scope="module")
def tables(engine: str) -> Store:
    return fresh_tables(engine)


class People:
    """A server, and whoever asks it for something."""

    def __init__(self, client: httpx2.AsyncClient, issuer: Issuer) -> None:
        self.client, self.issuer = client, issuer
        self.tenant = an_id(int(datetime.now(UTC).timestamp() * 1e6) % 10**9)

    def called(self, user: str, *roles: str, tenant: str | None = None) -> dict[str, str]:
        """The header of somebody's token."""
        token = self.issuer.token(tenant or self.tenant, user, now=datetime.now(UTC), lifetime=HOUR, roles=roles)
        return {"authorization": f"Bearer {token}"}

    async def chat(self, user: str = "ann") -> str:
        """A new chat of that user."""
        made = await self.client.post("/chats", json={}, headers=self.called(user))
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def call(self, user: str, *roles: str, action: Action | None = None) -> Call:
        """The same person, as services know them."""
        caller = Caller(TenantId(as_uuid(self.tenant)), UserId(as_uuid(user)), roles=frozenset(roles), action=action)
        return Call(caller, moment.now(), moment.new_id)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The tenant's events of a kind."""
        found = [item for item in OutboxItem.scan() if item.event_type == kind]
        told = [json.loads(item.payload) for item in found]
        return [one for one in told if one["tenant_id"] == as_uuid(self.tenant)]


@pytest.fixture
async def people(tmp_path: Path, tables: Store) -> AsyncIterator[People]:
    issuer = Issuer(tmp_path)
    settings = Settings.model_validate(
        {
            "store": tables,
            "cursor_secret": "long enough, and nobody else's",
            "auth": {"jwks": str(issuer.jwks_file), "roles_claim": "roles"},
            "policy_refresh_seconds": 0,
        }
    )
    transport = httpx2.ASGITransport(create_app(settings))
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://test{PREFIX}") as client:
        yield People(client, issuer)


READS = ("/chats/{chat}", "/chats/{chat}/messages", "/chats/{chat}/attachments")
WRITES: Sequence[tuple[str, str, dict[str, Any] | None]] = (
    ("PATCH", "/chats/{chat}", {"title": "Mine now"}),
    ("DELETE", "/chats/{chat}", None),
    ("POST", "/chats/{chat}/messages:stream", {"content": "Hello"}),
    ("POST", "/chats/{chat}/turns/{turn}/retry", None),
    ("PATCH", "/chats/{chat}/turns/{turn}", {"content": "Hello"}),
    ("DELETE", "/chats/{chat}/turns/{turn}", None),
    ("POST", "/chats/{chat}/turns/{turn}/cancel", None),
    ("PUT", "/chats/{chat}/messages/{turn}/reaction", {"reaction": "like"}),
    ("DELETE", "/chats/{chat}/messages/{turn}/reaction", None),
    ("POST", "/chats/{chat}/attachments/uploads", {"filename": "a.txt", "content_type": "text/plain", "size_bytes": 3}),
    ("DELETE", "/chats/{chat}/attachments/{turn}", None),
)
TURN_READS = ("/chats/{chat}/turns/{turn}", "/chats/{chat}/turns/{turn}/stream")


@pytest.mark.parametrize(
    ("roles", "own", "tenants"),
    [
        ((), 200, 404),
        (("tenant_admin",), 200, 404),
        (("auditor",), 200, 200),
        (("support",), 200, 404),
        (("service",), 200, 404),
        (("operator",), 200, 404),
    ],
)
async def test_a_role_reads_the_chats_that_its_policies_permit(
    people: People, roles: tuple[str, ...], own: int, tenants: int
) -> None:
    chats = {"own": await people.chat("ann"), "tenant": await people.chat("bob")}
    elsewhere = People(people.client, people.issuer)
    chats["foreign"] = await elsewhere.chat("ann")
    found = {
        how: {
            (await people.client.get(path.format(chat=chat), headers=people.called("ann", *roles))).status_code
            for path in READS
        }
        for how, chat in chats.items()
    }
    assert found == {"own": {own}, "tenant": {tenants}, "foreign": {404}}
    turns = [
        await people.client.get(path.format(chat=chats["tenant"], turn=an_id(7)), headers=people.called("ann", *roles))
        for path in TURN_READS
    ]
    word = "turn_not_found" if tenants == 200 else "chat_not_found"
    assert [one.json()["code"] for one in turns] == [word] * len(turns)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_only_its_owner_changes_a_chat(
    people: People, method: str, path: str, body: dict[str, Any] | None
) -> None:
    chat = await people.chat("bob")
    admin = people.call("ada", "tenant_admin", action="grant:create")
    grants.create(admin, UserId(as_uuid("ann")), moment.now() + HOUR, "Ticket 4711")
    codes = {}
    for role in ("", "tenant_admin", "auditor", "support", "service", "operator"):
        roles = (role,) if role else ()
        answer = await people.client.request(
            method, path.format(chat=chat, turn=an_id(7)), json=body, headers=people.called("ann", *roles)
        )
        codes[role] = answer.json()["code"]
    hidden = dict.fromkeys(("", "tenant_admin", "service", "operator"), "chat_not_found")
    assert codes == {**hidden, "auditor": "forbidden", "support": "forbidden"}
    assert (await people.client.get(f"/chats/{chat}", headers=people.called("bob"))).status_code == 200


async def test_an_auditor_writes_nothing_and_the_refusal_names_action_and_policy(people: People) -> None:
    refused = await people.client.post("/chats", json={}, headers=people.called("eve", "auditor"))
    assert (refused.status_code, refused.json()["code"], refused.json()["action"]) == (403, "forbidden", "chat:create")
    (event,) = people.events("decision_refused")
    assert (event["decision"], event["action"], event["policies"]) == (
        "authorization",
        "chat:create",
        ["auditor-never-writes"],
    )
    assert event["actor_user_id"] == as_uuid("eve")


async def test_a_role_leaves_a_trace_where_it_is_used_and_an_owner_leaves_none(people: People) -> None:
    chat, own = await people.chat("bob"), await people.chat("eve")
    for path in READS:
        assert (await people.client.get(path.format(chat=own), headers=people.called("eve", "auditor"))).is_success
        assert (await people.client.get(path.format(chat=chat), headers=people.called("bob"))).is_success
    assert people.events("role_used") == []
    assert (await people.client.get(f"/chats/{chat}/messages", headers=people.called("eve", "auditor"))).is_success
    (event,) = people.events("role_used")
    assert (event["action"], event["roles"], event["policies"]) == ("message:list", ["auditor"], ["auditor-reads"])
    assert (event["chat_id"], event["resource_owner"]) == (chat, as_uuid("bob"))


async def test_unknown_roles_say_nothing(people: People) -> None:
    chat = await people.chat("bob")
    answer = await people.client.get(f"/chats/{chat}", headers=people.called("eve", "root", "auditors", "user"))
    assert answer.status_code == 404


async def test_support_reads_while_a_grant_lasts_and_no_longer(people: People) -> None:
    chat, support = await people.chat("bob"), people.called("sue", "support")

    async def status() -> int:
        return (await people.client.get(f"/chats/{chat}/messages", headers=support)).status_code

    assert await status() == 404
    admin = people.call("ada", "tenant_admin", action="grant:create")
    grant = grants.create(admin, UserId(as_uuid("sue")), moment.now() + HOUR, "Ticket 4711")
    assert await status() == 200
    (event,) = people.events("role_used")[-1:]
    assert event["grant_id"] == grant.grant_id
    assert (await people.client.get(f"/chats/{chat}", headers=people.called("sam", "support"))).status_code == 404
    grants.revoke(people.call("ada", "tenant_admin", action="grant:revoke"), grant.grant_id)
    assert await status() == 404
    with pytest.raises(GrantNotFound):
        grants.revoke(people.call("ada", "tenant_admin", action="grant:revoke"), grant.grant_id)
    lasting = grants.create(admin, UserId(as_uuid("sue")), moment.now() + HOUR, "Ticket 4712")
    sue = people.call("sue", "support").caller
    assert grants.in_force(sue, lasting.until - HOUR / 3600) == lasting
    assert grants.in_force(sue, lasting.until) is None
    assert [one["event_type"] for one in people.events("grant_create") + people.events("grant_revoke")] == [
        "grant_create",
        "grant_create",
        "grant_revoke",
    ]


async def test_a_grant_has_a_reason_and_ends_within_eight_hours(people: People) -> None:
    admin, sue, now = people.call("ada", "tenant_admin"), UserId(as_uuid("sue")), moment.now()
    for until, reason in (
        (now + 9 * HOUR, "Ticket"),
        (now - HOUR, "Ticket"),
        (now + HOUR, "  "),
        (now + HOUR, "x" * 501),
    ):
        with pytest.raises(InvalidRequest):
            grants.create(admin, sue, until, reason)
    assert grants.listed(admin) == []
    for roles in ((), ("auditor",), ("support",), ("operator",)):
        with pytest.raises(Forbidden):
            grants.create(people.call("ann", *roles), sue, now + HOUR, "Ticket")


FORBIDS_UPLOADS = '@id("no-files") forbid (principal, action == Action::"attachment:create", resource);'
SHARES_WITH_EVE = """
@id("eve-reads-bob") permit (principal == User::"{eve}", action in Action::"read", resource is Chat)
when {{ resource.owner == User::"{bob}" }};
@id("everybody-everything") permit (principal, action == Action::"chat:delete", resource);
"""


async def test_a_tenants_own_policies_count_for_it_alone(people: People) -> None:
    chat, upload = await people.chat("bob"), {"filename": "a.txt", "content_type": "text/plain", "size_bytes": 3}
    path = f"/chats/{chat}/attachments/uploads"
    other = People(people.client, people.issuer)
    others_path = f"/chats/{await other.chat('bob')}/attachments/uploads"
    before = await people.client.post(path, json=upload, headers=people.called("bob"))
    first = authorization.publish(people.call("ada", "tenant_admin"), FORBIDS_UPLOADS, None)
    refused = await people.client.post(path, json=upload, headers=people.called("bob"))
    assert refused.status_code == 403
    assert people.events("decision_refused")[-1]["policies"] == ["tenant:no-files"]
    elsewhere = await people.client.post(others_path, json=upload, headers=other.called("bob"))
    assert elsewhere.status_code == before.status_code
    # Nobody else overtakes: each version replaces the one that was read.
    with pytest.raises(AuthorizationConflict):
        authorization.publish(people.call("ada", "tenant_admin"), "", None)
    authorization.publish(people.call("ada", "tenant_admin"), "", first.version)
    again = await people.client.post(path, json=upload, headers=people.called("bob"))
    assert again.status_code == before.status_code


async def test_a_tenants_own_policies_may_share_reading_and_never_writing(people: People) -> None:
    chat = await people.chat("bob")
    text = SHARES_WITH_EVE.format(eve=as_uuid("eve"), bob=as_uuid("bob"))
    authorization.publish(people.call("ada", "tenant_admin"), text, None)
    eve, ann = people.called("eve"), people.called("ann")
    assert (await people.client.get(f"/chats/{chat}", headers=eve)).status_code == 200
    assert (await people.client.get(f"/chats/{chat}", headers=ann)).status_code == 404
    assert (await people.client.delete(f"/chats/{chat}", headers=eve)).status_code == 403
    assert (await people.client.delete(f"/chats/{chat}", headers=ann)).status_code == 404
    assert people.events("role_used")[-1]["policies"] == ["tenant:eve-reads-bob"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('@id("a") permit (principal, action == ', "invalid"),
        ('@id("a") permit (principal, action == Action::"chat:fly", resource);', "invalid"),
        ('@id("a") permit (principal, action, resource) when { resource.colour == 1 };', "invalid"),
        ('forbid (principal, action == Action::"chat:create", resource);', "invalid"),
        (FORBIDS_UPLOADS + FORBIDS_UPLOADS, "invalid"),
        ('@id("a") forbid (principal, action, resource);', "locks_out"),
        ('@id("a") forbid (principal in Role::"tenant_admin", action in Action::"write", resource);', "locks_out"),
        ('@id("a") forbid (principal, action == Action::"authorization:publish", resource);', "locks_out"),
        ('@id("a") permit (principal == ?principal, action, resource);', "invalid"),
        (FORBIDS_UPLOADS + " " * 50_000, "too_large"),
    ],
)
async def test_policies_that_cannot_be_used_are_refused_with_the_reason(people: People, text: str, code: str) -> None:
    with pytest.raises(AuthorizationInvalid) as refused:
        authorization.publish(people.call("ada", "tenant_admin"), text, None)
    assert {one.code for one in refused.value.errors} == {code}
    assert authorization.current(people.call("ada", "tenant_admin")) is None


async def test_only_administrators_publish_policies(people: People) -> None:
    for roles in ((), ("auditor",), ("support",), ("tenant_admin", "auditor"), ("tenant_admin", "service")):
        with pytest.raises(Forbidden):
            authorization.publish(people.call("ann", *roles), FORBIDS_UPLOADS, None)


async def test_a_stream_goes_on_to_its_end_when_the_grant_ends_meanwhile(people: People, tables: Store) -> None:
    world = World(tables)
    world.now = moment.now()
    chat = world.chat()
    turn = world.turn(chat)
    tenant_id = world.caller.tenant_id
    sue = Caller(tenant_id, UserId(an_id(5)), roles=frozenset(("support",)))
    ada = Caller(tenant_id, UserId(an_id(6)), roles=frozenset(("tenant_admin",)))
    grant = grants.create(Call(ada, moment.now(), moment.new_id), sue.user_id, moment.now() + HOUR, "Ticket 4711")
    point = DecisionPoint(RULES.settings)
    asked = Asked("turn:resume", chat.chat_id)
    reading = replace(world.call(), caller=await point.admitted(sue, asked))
    found = await greenlets.run(resume, reading, chat.chat_id, turn.request_id, 0, RULES.settings)
    stream = follow(reading, found, RULES.settings, lambda: world.now)
    grants.revoke(Call(ada, moment.now(), moment.new_id), grant.grant_id)
    assert finalize(world.call(), turn, ENDING, RULES.settings)
    told = [one.event.name async for batch in stream for one in batch if one.event is not None]
    assert told[-1] == "done"
    later = replace(world.call(), caller=await point.admitted(sue, asked))
    with pytest.raises(ChatNotFound):
        await greenlets.run(resume, later, chat.chat_id, turn.request_id, 0, RULES.settings)
