"""The operator's API over HTTP: who may do what for which tenant, and what it does."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx2
import pytest

from minichat.domain.identity import TenantId
from minichat.domain.reconcile_report import ReconcileFinding, ReconcileRun, summed
from minichat.local.issuer import as_uuid
from minichat.settings import Store
from minichat.storage import reconcile_reports
from minichat.storage.items import connect
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

ACME, GLOBEX = as_uuid("acme"), as_uuid("globex")


@pytest.fixture
def operator(stack: Stack) -> Iterator[httpx2.Client]:
    with stack.operating("us", "operator") as client:
        yield client


@pytest.mark.parametrize(
    ("role", "deployment", "own", "foreign", "write"),
    [
        ("operator", 200, 200, 200, 200),
        ("tenant_admin", 403, 200, 404, 200),
        ("auditor", 403, 200, 404, 403),
        ("support", 403, 403, 403, 403),
        ("service", 403, 403, 403, 403),
        ("", 403, 403, 403, 403),
    ],
)
def test_each_role_reaches_its_own_tenant_at_most_and_an_operator_all(
    stack: Stack, role: str, deployment: int, own: int, foreign: int, write: int
) -> None:
    with stack.operating("acme", *filter(None, [role])) as client:
        switches = client.patch(f"/tenants/{ACME}/policy/kill_switches", json={"disable_images": False})
        found = [
            client.get("/running_turns").status_code,
            client.get(f"/tenants/{ACME}/running_turns").status_code,
            client.get(f"/tenants/{GLOBEX}/running_turns").status_code,
            switches.status_code,
        ]
    assert found == [deployment, own, foreign, write]


def test_a_policy_that_does_not_validate_names_the_path_and_changes_nothing(operator: httpx2.Client) -> None:
    before = operator.get("/policy").json()
    refused = operator.post("/policy/versions", json={**before["document"], "default_model": 7})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["field"] == "default_model"
    assert operator.post("/policy/versions", json=before["document"]).json()["code"] == "policy_conflict"
    assert operator.get("/policy").json() == before


def test_a_layer_of_a_tenant_is_compared_published_and_listed(operator: httpx2.Client) -> None:
    tenant = f"/tenants/{uuid4()}/policy"
    assert operator.get(tenant).json()["code"] == "policy_not_found"
    layer = {"kill_switches": {"disable_web_search": True}}
    assert operator.post(f"{tenant}/validate", json=layer).status_code == 204
    assert [one["path"] for one in operator.post(f"{tenant}/diff", json=layer).json()["items"]]
    assert operator.post(f"{tenant}/versions", json=layer).json() == {"version": 1}
    switched = operator.patch(f"{tenant}/kill_switches", json={"disable_web_search": False}).json()
    assert switched == {"version": 2, "kill_switches": {"disable_web_search": False}}
    assert operator.patch(f"{tenant}/kill_switches", json={"disable_web_search": 1}).status_code == 400
    assert operator.get(tenant).json()["document"] == {
        "policy_version": 2,
        **layer,
        "kill_switches": switched["kill_switches"],
    }
    assert [one["version"] for one in operator.get(f"{tenant}/versions").json()["items"]] == [2, 1]
    assert operator.delete(tenant).json() == {"version": 3}
    assert operator.get(tenant).json()["withdrawn"]
    versions = [operator.get(f"{tenant}/versions", params={"limit": 2, **page}) for page in ({}, {"before": 2})]
    assert [[one["version"] for one in page.json()["items"]] for page in versions] == [[3, 2], [1]]


def test_a_layer_of_a_user_is_published_like_that_of_a_tenant(operator: httpx2.Client) -> None:
    place = f"/tenants/{ACME}/users/{uuid4()}/policy"
    assert operator.get(place).json()["code"] == "policy_not_found"
    refused = operator.post(f"{place}/validate", json={"models": {"allow": ["nobody's"]}})
    assert refused.json()["errors"][0]["field"] == "models.allow.0", refused.text
    assert operator.post(f"{place}/versions", json={"models": {"deny": []}}).json() == {"version": 1}
    assert operator.delete(place).json() == {"version": 2}
    assert operator.delete("/policy").status_code == 405


def test_providers_are_published_by_name_of_their_keys_and_a_tenant_stays_in_its_own_folder(
    stack: Stack, operator: httpx2.Client
) -> None:
    tenant = uuid4().hex
    place, theirs = f"/tenants/{as_uuid(tenant)}/providers", "/tenants/acme%252Fwest/providers"

    def keyed(folder: str) -> dict[str, object]:
        secret = {"source": "secretsmanager", "name": f"/mini-chat/providers/{folder}/openai"}
        return {"overrides": {"openai": {"auth": {"secret": secret}}}}

    with stack.operating(tenant, "tenant_admin") as admin:
        assert admin.get(place).json()["code"] == "providers_not_found"
        refused = admin.post(f"{place}/versions", json=keyed("globex")).json()
        assert refused["errors"][0]["field"] == "overrides.openai.auth.secret.name"
        assert admin.post(f"{place}/validate", json=keyed(as_uuid(tenant))).status_code == 204
        assert admin.post(f"{place}/versions", json=keyed(as_uuid(tenant))).json() == {"version": 1}
        assert admin.get(place).json()["document"] == keyed(as_uuid(tenant))
        assert (admin.get("/providers").status_code, admin.get(theirs).status_code) == (403, 404)
    assert operator.post(f"{theirs}/versions", json=keyed("_acme_2Fwest")).json() == {"version": 1}
    assert operator.post(f"{theirs}/versions", json={"overrides": {}}).json() == {"version": 2}
    assert [one["version"] for one in operator.get(f"{theirs}/versions?before=2").json()["items"]] == [1]


def test_limits_below_what_is_used_are_taken(operator: httpx2.Client) -> None:
    place = f"/tenants/{ACME}/users/{uuid4()}/limits"
    assert operator.get(place).json() == {"version": None, "limits": None}
    nothing = {"limit_daily_credits_micro": 1, "limit_monthly_credits_micro": 1}
    made = operator.put(place, json={"standard": nothing, "premium": nothing})
    assert made.status_code == 200, made.text
    assert operator.get(place).json()["limits"]["standard"]["limit_daily_credits_micro"] == 1


def test_an_administrator_stops_a_turn_of_their_tenant(stack: Stack) -> None:
    with stack.user("acme") as user, stack.operating("acme", "tenant_admin") as admin:
        chat_id = user.new_chat()
        with user.streaming(
            "POST", f"/chats/{chat_id}/messages:stream", json={"content": "[[hold:admin-stops]] hello"}
        ) as (_, events):
            started = next(events)
            running = admin.get(f"/tenants/{ACME}/running_turns").json()["items"]
            assert started.data["request_id"] in [one["request_id"] for one in running]
            asked = admin.post(f"/tenants/{ACME}/running_turns/{chat_id}/{started.data['request_id']}/cancel")
            assert asked.status_code == 204
            stack.release("admin-stops")
            list(events)


def test_users_read_what_they_used_and_their_administrator_what_all_did(stack: Stack) -> None:
    today = datetime.now(UTC).date()
    span = {"from": (today - timedelta(days=1)).isoformat(), "to": (today + timedelta(days=1)).isoformat()}
    tenant = uuid4().hex
    with stack.user(tenant) as user, stack.operating(tenant, "tenant_admin") as admin:
        user.send(user.new_chat(), "[[say:Paris.]] The capital of France?")
        deadline = time.monotonic() + PATIENCE
        while not user.http.get("/usage", params=span).json()["items"] and time.monotonic() < deadline:
            time.sleep(0.05)
        mine = user.http.get("/usage", params=span).json()["items"]
        assert [day["turns"] for day in mine] == [1]
        for by in ("day", "user", "model"):
            told = admin.get(f"/tenants/{as_uuid(tenant)}/usage", params={**span, "by": by}).json()["items"]
            assert [row["credits_micro"] for row in told] == [mine[0]["credits_micro"]]
        backwards = user.http.get("/usage", params={"from": span["to"], "to": span["from"]})
        assert backwards.json()["errors"][0]["field"] == "to"


def test_runs_of_the_reconciliation_are_told_and_a_tenant_hears_of_its_own_alone(
    stack: Stack, operator: httpx2.Client
) -> None:
    connect(Store(endpoint=stack.about["engine_url"]))
    tenant, moment = uuid4().hex, datetime.now(UTC)
    wrong = ReconcileFinding("ledger", as_uuid(tenant), "totals of a day", "1 turn", "2 turns")
    run = ReconcileRun(moment, 1.5, turns=3, accounts=2, entries=2, repaired=1)
    reconcile_reports.keep_findings(moment, TenantId(as_uuid(tenant)), summed([wrong]))
    reconcile_reports.keep_run(run, summed([wrong, ReconcileFinding("quota", "another", "a month", "1", "2")]))
    span: dict[str, str | int] = {"before": (moment + timedelta(seconds=1)).isoformat(), "limit": 1}
    (told,) = operator.get("/reconcile", params=span).json()["items"]
    assert (told["seconds"], told["repaired"], told["counts"]) == (1.5, 1, {"ledger": 1, "quota": 1})
    assert [one["tenant_id"] for one in told["findings"]] == [as_uuid(tenant), "another"]
    assert moment.isoformat() not in operator.get("/reconcile", params={"before": told["at"]}).text
    for name, counts in ((tenant, {"ledger": 1}), (uuid4().hex, {})):
        with stack.operating(name, "tenant_admin") as admin:
            assert admin.get("/reconcile").status_code == 403
            (own,) = admin.get(f"/tenants/{as_uuid(name)}/reconcile", params=span).json()["items"]
            assert (own["at"], own["counts"], len(own["findings"])) == (told["at"], counts, len(counts))
    assert operator.get("/reconcile", params={"before": "0001-01-01T00:00:00Z"}).json() == {"items": []}


def test_dead_letters_and_health_are_told(operator: httpx2.Client) -> None:
    queues = operator.get("/dead_letters").json()["items"]
    assert "usage" in [one["queue"] for one in queues]
    assert operator.get("/dead_letters/nowhere").json()["code"] == "queue_not_found"
    assert operator.get("/health").json()["version"]


def test_an_administrator_makes_a_key_that_is_then_listed_and_revoked(stack: Stack, operator: httpx2.Client) -> None:
    place = f"/tenants/{ACME}/api_keys"
    wanted = {
        "name": "CRM",
        "scopes": ["chat:create"],
        "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    }
    with stack.operating("acme", "tenant_admin") as admin:
        made = admin.post(place, json=wanted)
        assert made.status_code == 201, made.text
        assert made.json()["id"] in [one["id"] for one in admin.get(place).json()["items"]]
        assert admin.delete(f"{place}/{made.json()['id']}").json()["revoked_at"]
    assert operator.post(place, json=wanted).status_code == 403


def test_a_grant_is_given_listed_and_ended_and_no_operator_gives_one(stack: Stack, operator: httpx2.Client) -> None:
    place = f"/tenants/{ACME}/grants"
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    wanted = {"user_id": str(uuid4()), "until": until, "reason": "Ticket 7"}
    with stack.operating("acme", "tenant_admin") as admin:
        made = admin.post(place, json=wanted)
        assert made.status_code == 201, made.text
        assert made.json()["id"] in [one["id"] for one in admin.get(place).json()["items"]]
        late = {**wanted, "until": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
        assert admin.post(place, json=late).json()["errors"][0]["field"] == "until"
        assert admin.delete(f"{place}/{made.json()['id']}").status_code == 204
        assert admin.delete(f"{place}/{made.json()['id']}").json()["code"] == "grant_not_found"
    assert operator.post(place, json=wanted).status_code == 403


def test_a_tenants_own_policies_are_published_in_place_of_those_that_were_read(stack: Stack) -> None:
    tenant = uuid4().hex
    place = f"/tenants/{as_uuid(tenant)}/authorization"
    text = '@id("no-files") forbid (principal, action == Action::"attachment:create", resource);'
    with stack.operating(tenant, "tenant_admin") as admin:
        assert admin.get(place).json()["version"] is None
        assert admin.put(place, json={"policies": text, "base": None}).json()["version"] == 1
        assert admin.get(place).json()["policies"] == text
        assert admin.put(place, json={"policies": "", "base": None}).json()["code"] == "authorization_conflict"
        assert admin.put(place, json={"policies": "permit", "base": 1}).json()["code"] == "invalid_authorization"


def test_an_erasure_and_an_export_are_of_one_user_or_of_the_tenant_and_begin_once(stack: Stack) -> None:
    tenant, user = uuid4().hex, str(uuid4())
    with stack.operating(tenant, "tenant_admin") as admin:
        for kind in ("exports", "erasures"):
            place = f"/tenants/{as_uuid(tenant)}/{kind}"
            for body in ({}, {"user_id": user, "whole_tenant": as_uuid(tenant)}, {"whole_tenant": "another"}):
                refused = admin.post(place, json=body)
                assert refused.status_code == 400, body
                assert refused.json()["errors"][0]["field"] in ("user_id", "whole_tenant")
            made = admin.post(place, json={"user_id": user})
            assert made.status_code == 202, made.text
            assert made.json()["id"] in [one["id"] for one in admin.get(place).json()["items"]]
            assert admin.get(f"{place}/{made.json()['id']}").json()["user_id"] in (user, None)
            assert admin.get(f"{place}/{uuid4()}").json()["code"] == f"{kind[:-1].removesuffix('s')}_not_found"


def test_an_operator_serves_the_tenant_that_the_path_names(stack: Stack, operator: httpx2.Client) -> None:
    tenant = uuid4().hex
    place = f"/tenants/{as_uuid(tenant)}/authorization"
    assert operator.put(place, json={"policies": "", "base": None}).json()["version"] == 1
    with stack.operating(tenant, "tenant_admin") as admin:
        assert admin.get(place).json()["version"] == 1
    assert operator.get(f"/tenants/{ACME}/authorization").json()["version"] is None
