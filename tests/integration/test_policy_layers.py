"""Layers of the policy in the table: published in one transaction, one of a race wins, and none reaches another."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.errors import InvalidRequest
from minichat.domain.identity import TenantId, UserId
from minichat.domain.policy import LimitsByUser
from minichat.domain.policy_layers import Difference, TenantLayer, UserLayer
from minichat.services import policy_layers
from minichat.services.policy_layers import Publisher
from minichat.settings import Settings, Store
from minichat.storage import policies
from minichat.storage.policies import Place, of_tenant, of_user
from tests.support.domain.builders import NOW, a_model, a_policy, new_id, some_limits
from tests.support.patience import PATIENCE

SETTINGS = Settings()
A, B = TenantId("a"), TenantId("b")
ANN = UserId("ann")


def publish(document: dict[str, Any] | None, place: Place[Any], by: str = "operator") -> int:
    return policy_layers.publish(document, place, SETTINGS, Publisher(by, NOW, new_id(NOW)))


@pytest.fixture(autouse=True)
def _deployment(store: Store) -> None:
    policy = a_policy(a_model(), a_model(id="big"), user_limits=LimitsByUser(default=some_limits(), most=some_limits()))
    policies.publish(policy, at=NOW, by="operator", token=new_id(NOW))


@pytest.mark.parametrize("place", [of_tenant(A), of_user(A, ANN)])
def test_versions_follow_each_other_and_a_withdrawn_layer_is_one_of_them(place: Place[Any]) -> None:
    assert policy_layers.shown(place) is None
    assert publish({"models": {"deny": ["big"]}}, place) == 1
    assert publish({"policy_version": 5}, place) == 5
    assert publish(None, place, by="ann") == 6
    assert [(one.version, one.by, one.withdrawn) for one in policies.history(place)] == [
        (6, "ann", True),
        (5, "operator", False),
        (1, "operator", False),
    ]
    current = policy_layers.shown(place)
    assert current is not None
    assert current.policy == place.kind(policy_version=6)
    with pytest.raises(policies.VersionTaken):
        publish({"policy_version": 6}, place)


def test_a_users_layer_is_where_every_send_finds_it() -> None:
    assert policies.layer_of(A, ANN) is None
    publish({"limits": some_limits(7).model_dump()}, of_user(A, ANN))
    assert policies.layer_of(A, ANN) == UserLayer(policy_version=1, limits=some_limits(7))
    assert policies.layer_of(B, ANN) is None
    publish(None, of_user(A, ANN))
    assert policies.layer_of(A, ANN) == UserLayer(policy_version=2)


def test_of_eight_who_publish_at_once_one_does() -> None:
    for number in range(1, 4):
        start = threading.Barrier(8)

        def operate(name: str, start: threading.Barrier = start, number: int = number) -> str | None:
            start.wait(PATIENCE)
            try:
                policies.publish(
                    TenantLayer(policy_version=number, system_prompt=name),
                    of_tenant(A),
                    at=NOW,
                    by=name,
                    token=new_id(NOW),
                )
            except policies.VersionTaken:
                return None
            return name

        with ThreadPoolExecutor(8) as pool:
            (winner,) = filter(None, pool.map(operate, "abcdefgh"))
        current = policy_layers.shown(of_tenant(A))
        assert current is not None
        assert (current.version, current.by, current.policy.system_prompt) == (number, winner, winner)


@pytest.mark.parametrize(
    ("document", "place", "path"),
    [
        ({"models": {"deny": ["small"], "allow": ["small"]}}, of_tenant(A), "models.deny.0"),
        ({"own": {"small": {"input_tokens_credit_multiplier_micro": 0}}}, of_tenant(A), "own.small."),
        ({"own": {"small": {"output_tokens_credit_multiplier_micro": 10**11}}}, of_tenant(A), "own.small."),
        ({"kill_switches": {"disable_everything": True}}, of_tenant(A), "kill_switches."),
        ({"mdoels": {}}, of_tenant(A), "mdoels"),
        ({"system_prompt": "x" * policies.MAX_TENANT_BYTES}, of_tenant(A), ""),
        ({"models": {"deny": [str(uuid4()) for _ in range(100)]}}, of_user(A, ANN), ""),
        ({"limits": some_limits(10**13).model_dump()}, of_user(A, ANN), "limits.standard."),
        ({"policy_version": 2}, policies.DEPLOYMENT, "model_catalog"),
        (None, policies.DEPLOYMENT, ""),
    ],
)
def test_what_is_wrong_is_named_and_changes_nothing(
    document: dict[str, Any] | None, place: Place[Any], path: str
) -> None:
    before = policies.current_version(place)
    with pytest.raises(InvalidRequest) as refused:
        publish(document, place)
    assert refused.value.errors[0].field.startswith(path)
    assert bool(refused.value.errors[0].field) == bool(path)
    assert policies.current_version(place) == before


def test_a_user_is_checked_under_the_layer_of_the_tenant() -> None:
    publish({"models": {"deny": ["big"]}}, of_tenant(A))
    with pytest.raises(InvalidRequest) as refused:
        publish({"models": {"allow": ["big", "small"]}}, of_user(A, ANN))
    assert [wrong.field for wrong in refused.value.errors] == ["models.allow.0"]
    assert publish({"models": {"allow": ["big"]}}, of_user(B, ANN)) == 1


def test_a_change_is_shown_before_it_is_made() -> None:
    publish({"models": {"deny": ["big"]}, "system_prompt": "Be ours."}, of_tenant(A))
    assert policy_layers.compared({"models": {"deny": ["small"]}}, of_tenant(A), SETTINGS) == [
        Difference(path="models.deny", before=["big"], after=["small"]),
        Difference(path="system_prompt", before="Be ours."),
    ]
