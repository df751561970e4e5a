"""The table that decides says what Cedar says of the policies it was made from, and every route asks it."""

from functools import partial
from itertools import combinations, product
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from minichat.domain.actions import CHAT_READS, CHAT_WRITES, OWN_ACCOUNT, ROLES
from minichat.domain.authorization import by_default, decide, ever
from minichat.domain.identity import Caller, Resource, TenantId, UserId
from minichat.http.acting import action_of_route
from minichat.http.admin.app import QUEUES, TABLE, admin_routers
from minichat.http.admin.routes.openapi import document as operators_document
from minichat.http.app import BUFFERED, STREAMING, routers
from minichat.http.deps import Authenticated
from minichat.http.document import document
from minichat.local.tables import project_root
from tests.reference import decisions

ME = Caller(TenantId("ours"), UserId("me"))
PUBLIC = {"/health", "/openapi.json", "/docs", "/docs/{name}"}


def test_the_table_is_what_the_policies_say() -> None:
    assert (project_root() / decisions.TABLE).read_text(encoding="utf-8") == decisions.formatted(
        decisions.compiled()
    ), "stale: run `make decisions`"


@pytest.mark.parametrize("roles", [(), *combinations(ROLES, 1), *combinations(ROLES, 2), ROLES], ids="+".join)
def test_roles_together_are_decided_as_cedar_does(roles: tuple[str, ...]) -> None:
    policies = decisions.policy_set("permit", "forbid")
    for action in decisions.ACTIONS:
        for how in decisions.relations(action):
            decided = by_default(roles, action, how).decided
            allowed, ids = decisions.evaluated(policies, roles, action, how)
            assert (decided.allowed, set(decided.policies)) == (allowed, set(ids)), (action, how)


SERVED = {
    "api": partial(routers, BUFFERED),
    "stream": partial(routers, STREAMING),
    "operators": partial(admin_routers, TABLE | QUEUES),
}


@pytest.mark.parametrize("app", SERVED)
def test_no_route_is_without_an_action(app: str) -> None:
    routes = [route for router in SERVED[app]() for route in router.routes if isinstance(route, APIRoute)]
    assert routes
    for route in routes:
        assert action_of_route(route) is not None, route.path
        assert isinstance(route, Authenticated) or route.path in PUBLIC, route.path
        assert (action_of_route(route) == "service:read") is not isinstance(route, Authenticated), route.path


@pytest.mark.filterwarnings("ignore:The 'alias' attribute with value")
def test_the_document_says_the_action_of_every_operation() -> None:
    found = [operation["x-action"] for path in document("/x")["paths"].values() for operation in path.values()]
    assert set(found) <= set(decisions.ACTIONS)
    assert {*CHAT_READS, *CHAT_WRITES, *OWN_ACCOUNT} <= set(found)


@pytest.mark.filterwarnings("ignore:The 'alias' attribute with value")
def test_every_action_is_an_operation() -> None:
    found = {
        operation["x-action"]
        for described in (document("/x"), operators_document("/x"))
        for path in described["paths"].values()
        for operation in path.values()
    }
    assert set(decisions.ACTIONS) == found


def test_nobody_but_its_owner_is_permitted_to_change_a_chat() -> None:
    for role, action, how in product(ROLES, CHAT_WRITES, ("tenant", "foreign")):
        assert not by_default([role], action, how).decided.allowed  # type: ignore[arg-type]


def test_the_scopes_of_a_key_narrow_what_its_owner_may() -> None:
    own = Resource(ME.tenant_id, ME.user_id)
    key = Caller(ME.tenant_id, ME.user_id, roles=frozenset(("tenant_admin",)), scopes=frozenset(("chat:read",)))
    assert decide(key, "chat:read", own).allowed
    assert ever(key, "chat:read").allowed
    for action in ("turn:send", "policy:publish"):
        assert not ever(key, action).allowed
        assert not decide(key, action, own).allowed


def test_policies_and_schema_are_part_of_what_is_deployed() -> None:
    assert Path("shared/minichat") in decisions.POLICIES.parents
