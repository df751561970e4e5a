"""Layers of the policy in the table: published in one transaction, one of a race wins, and none reaches another."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain.errors import InvalidRequest, ServiceUnavailable
from minichat.domain.identity import RequestId, TenantId, UserId
from minichat.domain.policy import LimitsByUser
from minichat.domain.policy_layers import MAX_TENANT_BYTES, LayerDifference, TenantLayer, UserLayer
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.services import chats, policy_in_force, policy_layers
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import InForce
from minichat.services.policy_layers import Publisher
from minichat.services.send import send
from minichat.settings import Settings, Store
from minichat.storage import policies, turns
from minichat.storage.policies import Place, of_tenant, of_user
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, new_id, some_limits
from tests.support.patience import PATIENCE
from tests.support.storage.faults import answers_lost, counted_calls

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
@pytest.mark.holds("turns.layers-withdrawn")
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
        ({"system_prompt": "x" * MAX_TENANT_BYTES}, of_tenant(A), ""),
        ({"models": {"deny": [str(uuid4()) for _ in range(100)]}}, of_user(A, ANN), ""),
        ({"limits": some_limits(10**13).model_dump()}, of_user(A, ANN), "limits.standard."),
        ({"policy_version": 2}, policies.DEPLOYMENT, "model_catalog"),
        (None, policies.DEPLOYMENT, ""),
    ],
)
@pytest.mark.holds("turns.layers-refused")
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
        LayerDifference(path="models.deny", before=["big"], after=["small"]),
        LayerDifference(path="system_prompt", before="Be ours."),
    ]


def chosen(in_force: InForce, tenant_id: TenantId, monotonic: float) -> tuple[int, list[str]]:
    in_force.look(tenant_id, monotonic)
    rules = in_force.rules_of(tenant_id)
    return rules.tenant_version, [model.id for model in rules.policy.enabled_models()]


def test_instances_follow_each_tenant_in_one_read_and_no_other_tenant_notices() -> None:
    in_force = InForce(Settings(policy_refresh_seconds=5))
    publish({"models": {"deny": ["big"]}}, of_tenant(A))
    assert (chosen(in_force, A, 0), chosen(in_force, B, 0)) == ((1, ["small"]), (0, ["small", "big"]))
    assert not in_force.is_due(A, 4.9)
    assert in_force.is_due(A, 5)
    with counted_calls() as calls:
        assert chosen(in_force, A, 5) == (1, ["small"])
    assert calls == ["BatchGetItem"]
    publish(None, of_tenant(A))
    policies.publish(a_policy(a_model(), policy_version=2), at=NOW, by="operator", token=new_id(NOW))
    assert (chosen(in_force, B, 5), chosen(in_force, A, 10)) == ((0, ["small"]), (2, ["small"]))


@pytest.mark.holds("turns.layers-unknown-tenant")
def test_while_the_store_is_silent_known_tenants_keep_their_layer_and_unknown_ones_are_not_served() -> None:
    in_force = InForce(Settings(policy_refresh_seconds=0))
    publish({"models": {"deny": ["big"]}}, of_tenant(A))
    assert chosen(in_force, A, 0) == (1, ["small"])
    with answers_lost("BatchGetItem", 100):
        assert chosen(in_force, A, 1) == (1, ["small"])
        with pytest.raises(ServiceUnavailable):
            chosen(in_force, B, 1)
    with pytest.raises(ServiceUnavailable):
        in_force.rules_of(B)
    assert chosen(in_force, B, 2) == (0, ["small", "big"])


def test_a_process_keeps_the_tenants_that_called_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_in_force, "TENANTS_KNOWN", 2)
    in_force = InForce(Settings(policy_refresh_seconds=60))
    for tenant_id in (A, B, A, TenantId("c")):
        chosen(in_force, tenant_id, 0)
    assert [in_force.is_due(tenant_id, 1) for tenant_id in (A, B, TenantId("c"))] == [False, True, False]


@pytest.mark.holds("turns.layers-recorded")
def test_a_turn_records_the_versions_that_priced_it_and_settles_by_them() -> None:
    caller = a_caller()
    own = {"small": {"output_tokens_credit_multiplier_micro": 7_000_000}}
    publish({"policy_version": 4, "own": own}, of_tenant(caller.tenant_id))
    publish({"policy_version": 9}, of_user(caller.tenant_id, caller.user_id))
    in_force = InForce(Settings(policy_refresh_seconds=0))
    in_force.look(caller.tenant_id, 0)
    rules = in_force.rules_of(caller.tenant_id)
    chat = chats.create(a_call(), chats.NewChat(), rules)
    running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    publish(None, of_tenant(caller.tenant_id))
    publish(None, of_user(caller.tenant_id, caller.user_id))
    ending = Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 10))
    assert finalize(a_call(), running.turn, ending, rules.settings)
    _, settled = turns.read(chat.tenant_id, chat.chat_id, running.turn.request_id)
    assert settled is not None
    reserve = settled.reserve
    assert (reserve.policy_version, reserve.tenant_policy_version, reserve.user_policy_version) == (1, 4, 9)
    assert settled.committed_credits_micro == 10 + 70
