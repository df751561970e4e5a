"""Provider entries in the table: what is published counts for its tenant only, and nothing wrong is published."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest

from minichat.domain.errors import InvalidRequest, ServiceUnavailable
from minichat.domain.identity import TenantId, UserId
from minichat.provider_entries import Provider
from minichat.services import provider_config
from minichat.services.policy_in_force import Rules
from minichat.services.providers_in_force import ProvidersInForce
from minichat.settings import Settings, Store
from minichat.storage import keys, provider_versions
from minichat.storage.provider_versions import ProvidersMoved, Publication, providers_history
from tests.support.domain.builders import NOW, a_caller, a_model, a_policy, new_id
from tests.support.storage.faults import answers_lost, counted_calls
from tests.support.storage.many_users import cost_of_a_send, fill_overrides

FAST = Settings(policy_refresh_seconds=0)
RULES = Rules(Settings(), a_policy(a_model(preference={"is_default": True})))


def a_tenant() -> TenantId:
    return TenantId(str(uuid4()))


def publish(document: dict[str, object], tenant_id: TenantId | None = None, settings: Settings = FAST) -> int:
    return provider_config.publish(document, tenant_id, settings, Publication("operator", NOW, new_id(NOW)))


def override(tenant_id: TenantId, host: str = "") -> dict[str, object]:
    secret = {"source": "ssm", "name": f"/mini-chat/providers/{tenant_id}/openai"}
    return {"openai": {"base_url": f"https://{host or tenant_id}.example.com", "auth": {"secret": secret}}}


def refused(document: dict[str, object], tenant_id: TenantId | None = None, settings: Settings = FAST) -> list[str]:
    with pytest.raises(InvalidRequest) as problem:
        publish(document, tenant_id, settings)
    assert provider_versions.current_providers(tenant_id) is None
    return [wrong.field for wrong in problem.value.errors]


def test_until_entries_are_published_the_settings_count(store: Store) -> None:
    in_force = ProvidersInForce(FAST)
    assert in_force.entries_of(a_tenant()) == FAST.providers
    assert in_force.settings == FAST


def test_an_instance_follows_within_its_seconds(store: Store) -> None:
    tenant_id, in_force = a_tenant(), ProvidersInForce(FAST)
    in_force.take(tenant_id, {}, 100)
    settled = ProvidersInForce(Settings(policy_refresh_seconds=5))
    settled.take(tenant_id, {}, 100)
    assert not settled.is_due(tenant_id, 104.9)
    assert settled.is_due(tenant_id, 105)
    publish({"overrides": override(tenant_id)}, tenant_id)
    assert in_force.entries_of(tenant_id)["openai"].base_url == f"https://{tenant_id}.example.com"
    publish({"overrides": {}}, tenant_id)
    assert in_force.entries_of(tenant_id) == FAST.providers


def test_fifty_tenants_in_one_process_each_have_their_own_address_and_key(store: Store) -> None:
    tenants = [a_tenant() for _ in range(50)]
    for tenant_id in tenants[::2]:
        publish({"overrides": override(tenant_id)}, tenant_id)
    in_force = ProvidersInForce(FAST)

    def right(tenant_id: TenantId) -> bool:
        entry = in_force.entries_of(tenant_id)["openai"]
        if tenant_id not in tenants[::2]:
            return entry == FAST.providers["openai"]
        assert entry.auth is not None
        return str(tenant_id) in entry.base_url and str(tenant_id) in entry.auth.secret.name

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, tenants * 4))
    # Nothing of it is in the settings, which are the environment's.
    assert not any(entry.tenant_overrides for entry in in_force.settings.providers.values())


def test_five_hundred_tenants_with_overrides_add_nothing_to_a_send_nor_to_the_environment(store: Store) -> None:
    without, environment = cost_of_a_send(RULES), dict(os.environ)
    tenants = [TenantId(a_caller().tenant_id), *(a_tenant() for _ in range(499))]
    fill_overrides({tenant_id: json.dumps({"overrides": override(tenant_id)}).encode() for tenant_id in tenants})
    in_force = ProvidersInForce(Settings())

    def known(tenant_id: TenantId) -> str:
        return in_force.entries_of(tenant_id)["openai"].base_url

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(known, tenants)) == [f"https://{tenant_id}.example.com" for tenant_id in tenants]
    with counted_calls() as calls:
        known(tenants[-1])
    assert calls == [], "what is known counts for its seconds"
    assert cost_of_a_send(replace(RULES, settings=in_force.settings)) == without
    assert (dict(os.environ), in_force.settings) == (environment, Settings())


def test_no_user_is_where_providers_are() -> None:
    tenant_id = a_tenant()
    assert keys.providers_in_force(tenant_id).pk == f"T#{tenant_id}#P#PROVIDERS"
    for name in ("PROVIDERS", "P#PROVIDERS", "CURRENT"):
        assert keys.owner(tenant_id, UserId(name)) not in {"PROVIDERS", f"T#{tenant_id}#P#PROVIDERS"}


def test_a_tenants_folder_is_its_own_whatever_its_name(store: Store) -> None:
    secret = {"source": "ssm", "name": "/mini-chat/providers/acme/west/openai"}
    document: dict[str, object] = {"overrides": {"openai": {"auth": {"secret": secret}}}}
    assert refused(document, TenantId("acme/west")) == ["overrides.openai.auth.secret.name"]
    secret["name"] = "/mini-chat/providers/_acme_2Fwest/openai"
    assert refused(document, TenantId("acme")) == ["overrides.openai.auth.secret.name"]
    assert refused(document, TenantId("_acme_2Fwest")) == ["overrides.openai.auth.secret.name"]
    assert publish(document, TenantId("acme/west")) == 1


def test_deployments_entries_replace_the_settings_and_overrides_lie_upon_them(store: Store) -> None:
    tenant_id, in_force = a_tenant(), ProvidersInForce(FAST)
    openai = FAST.providers["openai"].model_dump(mode="json", exclude_unset=True)
    publish({"providers": {"openai": openai | {"retries": 4}}})
    publish({"overrides": override(tenant_id)}, tenant_id)
    entry = in_force.entries_of(tenant_id)["openai"]
    assert (entry.retries, entry.base_url) == (4, f"https://{tenant_id}.example.com")
    assert in_force.settings.providers["openai"].retries == 4
    # The operator narrows hosts afterwards: the tenant's address is no longer permitted, and the key goes nowhere.
    publish({"providers": {"openai": openai | {"allowed_hosts": ["api.openai.com"]}}})
    assert "openai" not in in_force.entries_of(tenant_id)
    assert "openai" in in_force.entries_of(a_tenant())


def test_while_the_store_is_silent_the_known_stays_and_the_unknown_is_not_served(store: Store) -> None:
    tenant_id, in_force = a_tenant(), ProvidersInForce(FAST)
    publish({"overrides": override(tenant_id)}, tenant_id)
    known = in_force.entries_of(tenant_id)
    with answers_lost("BatchGetItem", 100):
        assert in_force.entries_of(tenant_id) == known
        with pytest.raises(ServiceUnavailable):
            in_force.entries_of(a_tenant())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("MINICHAT_CURSOR_SECRET", "env"),
        ("/mini-chat/providers/openai", "ssm"),
        ("/mini-chat/providers/another-tenant/openai", "secretsmanager"),
        ("minichat/openai", "secretsmanager"),
    ],
)
def test_a_tenants_key_is_read_only_from_its_own_folder(store: Store, name: str, source: str) -> None:
    auth = {"secret": {"source": source, "name": name}}
    assert refused({"overrides": {"openai": {"auth": auth}}}, a_tenant()) == ["overrides.openai.auth.secret.name"]


@pytest.mark.parametrize(
    "url", ["https://10.0.0.7", "https://169.254.169.254", "https://localhost", "https://[::1]", "https://db.internal"]
)
def test_a_tenants_address_is_never_a_private_one(store: Store, url: str) -> None:
    tenant_id = a_tenant()
    said = override(tenant_id)
    said["openai"] |= {"base_url": url}  # type: ignore[operator]
    assert refused({"overrides": said}, tenant_id) == ["overrides.openai.base_url"]
    # Not even of an entry that is itself private, unless the operator names the host.
    private = Provider.model_validate({"base_url": "http://127.0.0.1:9", "allow_insecure": True})
    local = Settings(policy_refresh_seconds=0, providers={"openai": private})
    assert refused({"overrides": said}, tenant_id, local) == ["overrides.openai"]


def test_wrong_entries_are_refused_with_their_paths(store: Store) -> None:
    tenant_id = a_tenant()
    assert refused({"overrides": {"nobody": {}}}, tenant_id) == ["overrides.nobody"]
    assert refused({"overrides": {"openai": {"base_url": "http://a.example.com"}}}, tenant_id) == ["overrides.openai"]
    assert refused({"overrides": {"openai": {"key": "sk-never-stored"}}}, tenant_id) == ["overrides.openai.key"]
    openai = FAST.providers["openai"].model_dump(mode="json", exclude_unset=True)
    assert refused({"providers": {"other": openai}}) == ["providers"]
    elsewhere = openai | {"auth": {"secret": {"source": "ssm", "name": "/others/key"}}}
    assert refused({"providers": {"openai": elsewhere}}) == ["providers.openai.auth.secret.name"]


def test_of_eight_who_publish_at_once_each_version_has_one_author_and_each_its_event(store: Store) -> None:
    tenant_id = a_tenant()
    document = json.dumps({"overrides": {}}).encode()

    def attempt(name: str) -> str | None:
        publication = Publication(name, NOW, new_id(NOW))
        try:
            provider_versions.publish_providers(tenant_id, document, publication, previous=None)
        except ProvidersMoved:
            return None
        return name

    with ThreadPoolExecutor(8) as pool:
        (winner,) = filter(None, pool.map(attempt, "abcdefgh"))
    assert [(one.version, one.by) for one in providers_history(tenant_id)] == [(1, winner)]
    assert publish({"overrides": {}}, tenant_id) == 2
    assert [one.version for one in providers_history(tenant_id)] == [2, 1]


def test_of_two_who_changed_the_same_version_the_later_is_refused(store: Store) -> None:
    tenant_id = a_tenant()

    def after(base: int) -> int:
        said = Publication("ann", NOW, new_id(NOW), base)
        return provider_config.publish({"overrides": {}}, tenant_id, FAST, said)

    assert (after(0), after(1)) == (1, 2)
    for stale in (0, 1, 3):
        with pytest.raises(ProvidersMoved):
            after(stale)
    assert [one.version for one in providers_history(tenant_id)] == [2, 1]
