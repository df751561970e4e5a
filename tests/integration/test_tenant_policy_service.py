"""Layers of tenants from a customer's own service: signed, in time, kept, and never a guess."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minichat.domain.errors import InvalidRequest, ServiceUnavailable
from minichat.domain.identity import TenantId, UserId
from minichat.provider_entries import Secret, TenantPolicies
from minichat.services import policy_layers
from minichat.services.policy_in_force import InForce
from minichat.settings import Settings, Store
from minichat.storage.policies import of_tenant, of_user
from tests.support.domain.builders import NOW, new_id
from tests.support.http.policy_service import SECRET, PolicyService, serving

TENANT = TenantId("acme")
DENIES = {"policy_version": 3, "models": {"deny": ["gpt-4.1"]}}


@pytest.fixture
def service(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[PolicyService]:
    monkeypatch.setenv("POLICY_SECRET", SECRET)
    with serving() as running:
        yield running


def settings(service: PolicyService, **said: Any) -> Settings:
    values: dict[str, Any] = {"url": service.url, "secret": Secret(name="POLICY_SECRET"), "allow_insecure": True}
    return Settings(policy_refresh_seconds=0, tenant_policies=TenantPolicies(**(values | {"cache_seconds": 0} | said)))


def chosen(in_force: InForce, tenant_id: TenantId = TENANT) -> tuple[int, bool]:
    """The version of a tenant's layer, and whether a model may be chosen that it denies."""
    in_force.look(tenant_id, 0)
    rules = in_force.rules_of(tenant_id)
    return rules.tenant_version, "gpt-4.1" in [model.id for model in rules.policy.enabled_models()]


def test_a_tenant_has_the_layer_that_the_service_says_and_no_other_tenant_has(service: PolicyService) -> None:
    service.layers[TENANT] = DENIES
    in_force = InForce(settings(service))
    assert chosen(in_force) == (3, False)
    assert chosen(in_force, TenantId("other")) == (0, True)
    service.layers[TENANT] = {"policy_version": 4}
    assert chosen(in_force) == (4, True)


def test_an_answer_counts_for_its_seconds(service: PolicyService) -> None:
    in_force = InForce(settings(service, cache_seconds=3600))
    for _ in range(3):
        assert chosen(in_force) == (0, True)
    assert service.asked == [TENANT]


@pytest.mark.parametrize(
    "broken",
    [
        (500, b""),
        (302, b""),
        (200, b"not JSON"),
        (200, b'{"models": {}}'),
        (200, b'{"policy_version": 4, "unknown": 1}'),
        (200, b'{"policy_version": 4, "models": {"allow": ["x"], "deny": ["x"]}}'),
        (200, b'{"policy_version": 4, "default_model": "x", "models": {"deny": ["x"]}}'),
        (200, b'{"policy_version": 4, "system_prompt": "' + b"x" * 60_000 + b'"}'),
    ],
)
@pytest.mark.holds("turns.layers-service")
def test_what_cannot_be_used_leaves_the_last_known_layer_and_serves_no_unknown_tenant(
    service: PolicyService, broken: tuple[int, bytes]
) -> None:
    service.layers[TENANT] = DENIES
    in_force = InForce(settings(service))
    assert chosen(in_force) == (3, False)
    service.broken = broken
    assert chosen(in_force) == (3, False)
    with pytest.raises(ServiceUnavailable):
        chosen(in_force, TenantId("other"))
    with pytest.raises(ServiceUnavailable):
        in_force.rules_of(TenantId("other"))


def test_a_service_that_is_silent_is_waited_for_no_longer_than_its_deadline(service: PolicyService) -> None:
    service.silent = threading.Event()
    in_force = InForce(settings(service, deadline_ms=50))
    with pytest.raises(ServiceUnavailable):
        chosen(in_force)
    with pytest.raises(ServiceUnavailable):
        asyncio.run(in_force.looked(TENANT, 0))
    service.silent.set()
    service.layers[TENANT] = DENIES
    assert chosen(InForce(settings(service))) == (3, False)


def test_a_service_that_knows_another_secret_tells_nothing(
    service: PolicyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_force = InForce(settings(service))
    monkeypatch.setenv("POLICY_SECRET", "another")
    with pytest.raises(ServiceUnavailable):
        chosen(in_force)
    # A secret that was refused is read again: it may have been rotated.
    monkeypatch.setenv("POLICY_SECRET", SECRET)
    assert chosen(in_force) == (0, True)


@pytest.mark.parametrize(
    "said",
    [
        {"url": "https://policies.example.com"},
        {"url": "http://policies.example.com", "secret": Secret(name="X")},
        {"url": "https://ann@policies.example.com", "secret": Secret(name="X")},
    ],
)
def test_an_address_that_may_not_be_asked_stops_the_start(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="url"):
        TenantPolicies(**said)


def test_private_addresses_are_not_asked_unless_the_setting_says_so(store: Store) -> None:
    entry = TenantPolicies(url="https://127.0.0.1:1/x", secret=Secret(name="PATH"))
    with pytest.raises(ServiceUnavailable):
        chosen(InForce(Settings(tenant_policies=entry)))


def test_layers_of_users_stay_in_the_table_and_are_checked_under_what_the_service_says(service: PolicyService) -> None:
    service.layers[TENANT] = DENIES
    publisher = policy_layers.Publisher("operator", NOW, new_id(NOW))
    with pytest.raises(InvalidRequest):
        policy_layers.publish({}, of_tenant(TENANT), settings(service), publisher)
    with pytest.raises(InvalidRequest):
        policy_layers.publish(
            {"models": {"allow": ["gpt-4.1"]}}, of_user(TENANT, UserId("ann")), settings(service), publisher
        )
    assert policy_layers.publish({}, of_user(TENANT, UserId("ann")), settings(service), publisher) == 1
