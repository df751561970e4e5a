"""Layers of the policy: what a tenant's and a user's change of the deployment's, and which contradict it."""

from typing import Any

import pytest
from pydantic import ValidationError

from minichat.domain.policy import KillSwitches, LimitsByUser, Policy
from minichat.domain.policy_layers import (
    LayerDifference,
    TenantLayer,
    UserLayer,
    differences,
    effective,
    tenant_contradictions,
    user_contradictions,
)
from tests.support.domain.builders import a_model, a_policy, some_limits

POLICY = a_policy(
    a_model(id="big", tier="premium", preference={"is_default": True}, system_prompt="Be big."),
    a_model(id="small", preference={"is_default": True}),
    a_model(id="off", enabled=False),
    kill_switches=KillSwitches(disable_images=True),
    user_limits=LimitsByUser(default=some_limits(100), users={"ann": some_limits(700)}, most=some_limits(1000)),
)
MOST = some_limits(1000).model_dump()
TOO_MUCH = some_limits(1001).model_dump()


def tenant(**said: Any) -> TenantLayer:
    return TenantLayer.model_validate(said)


def user(**said: Any) -> UserLayer:
    return UserLayer.model_validate(said)


def enabled(policy: Policy) -> list[str]:
    return [model.id for model in policy.enabled_models()]


def daily(policy: Policy, user_id: str = "bob") -> int:
    return policy.limits_of(user_id).standard.limit_daily_credits_micro


def test_a_layer_can_set_every_switch_there_is_and_no_other() -> None:
    every = dict.fromkeys(KillSwitches.model_fields, True)
    assert effective(POLICY, tenant(kill_switches=every)).kill_switches == KillSwitches.model_validate(every)
    with pytest.raises(ValidationError):
        tenant(kill_switches={"disable_everything": True})


@pytest.mark.holds("turns.layers-inherit")
def test_what_a_layer_does_not_say_it_inherits() -> None:
    assert effective(POLICY, None, None) is POLICY
    assert effective(POLICY, tenant(), user()) == POLICY


@pytest.mark.holds("turns.layers-narrow")
def test_a_tenant_has_models_prices_prompts_and_switches_of_its_own() -> None:
    layer = tenant(
        models={"deny": ["big"]},
        own={"small": {"output_tokens_credit_multiplier_micro": 9}},
        system_prompt="Be ours.",
        kill_switches={"disable_web_search": True, "disable_images": False},
    )
    policy = effective(POLICY, layer)
    assert enabled(policy) == ["small"]
    small = policy.model("small")
    assert (small.input_tokens_credit_multiplier_micro, small.output_tokens_credit_multiplier_micro) == (1_000_000, 9)
    assert small.system_prompt == "Be ours."
    # What the deployment has switched off stays off, whatever a layer says that was published before.
    assert policy.kill_switches == KillSwitches(disable_images=True, disable_web_search=True)
    assert enabled(POLICY) == ["big", "small"], "the deployment's own policy does not change"


def test_a_models_own_prompt_goes_before_the_tenants_one() -> None:
    policy = effective(POLICY, tenant(system_prompt="All.", own={"big": {"system_prompt": ""}}))
    assert (policy.model("big").system_prompt, policy.model("small").system_prompt) == ("", "All.")


def test_a_tenants_default_is_the_model_of_new_chats() -> None:
    assert POLICY.model_for_new_chat(None).id == "big"
    assert effective(POLICY, tenant(default_model="small")).model_for_new_chat(None).id == "small"
    # Of a user who may not have it, another one.
    both = effective(POLICY, tenant(default_model="small"), user(models={"deny": ["small"]}))
    assert both.model_for_new_chat(None).id == "big"


@pytest.mark.holds("turns.layers-limits")
def test_the_nearest_layer_says_what_a_user_may_spend_and_no_layer_more_than_the_most() -> None:
    mine = tenant(user_limits={"default": some_limits(50), "most": some_limits(800)})
    assert (daily(POLICY), daily(effective(POLICY, mine))) == (100, 50)
    assert daily(effective(POLICY, mine), "ann") == 700, "a policy names a user more closely than a tenant's default"
    assert daily(effective(POLICY, mine, user(limits=some_limits(60))), "ann") == 60
    assert daily(effective(POLICY, mine, user(limits=some_limits(999)))) == 800
    assert daily(effective(POLICY, tenant(), user(limits=some_limits(5000)))) == 1000


def test_a_user_may_be_left_fewer_models_and_never_others() -> None:
    assert enabled(effective(POLICY, None, user(models={"allow": ["small"]}))) == ["small"]
    assert enabled(effective(POLICY, tenant(models={"deny": ["big"]}), user(models={"allow": ["big", "small"]}))) == [
        "small"
    ]
    assert enabled(effective(POLICY, None, user(models={"allow": ["off", "small"]}))) == ["small"]


@pytest.mark.holds("turns.layers-meaningless")
def test_what_a_later_policy_makes_meaningless_is_ignored() -> None:
    layer = tenant(
        models={"deny": ["gone"]}, own={"gone": {"system_prompt": "x"}}, default_model="gone", system_prompt=None
    )
    assert enabled(effective(POLICY, layer)) == enabled(POLICY)
    assert effective(POLICY, layer).model_for_new_chat(None).id == "big"


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"models": {"allow": ["big"], "deny": ["big"]}}, "models.deny.0"),
        ({"models": {"deny": ["small", "unknown"]}}, "models.deny.1"),
        ({"models": {"allow": ["unknown"]}}, "models.allow.0"),
        ({"own": {"unknown": {}}}, "own.unknown"),
        ({"default_model": "unknown"}, "default_model"),
        ({"default_model": "big", "models": {"deny": ["big"]}}, "default_model"),
        ({"kill_switches": {"disable_images": False}}, "kill_switches.disable_images"),
        ({"models": {"deny": ["big", "small"]}}, "models"),
        ({"models": {"allow": []}}, "models"),
        ({"user_limits": {"most": TOO_MUCH}}, "user_limits.most.standard.limit_daily_credits_micro"),
        ({"user_limits": {"default": TOO_MUCH}}, "user_limits.default.standard.limit_daily_credits_micro"),
        (
            {"user_limits": {"default": MOST, "most": some_limits(999)}},
            "user_limits.default.standard.limit_daily_credits_micro",
        ),
    ],
)
def test_a_contradiction_of_a_tenants_layer_is_named_by_its_path(said: dict[str, Any], path: str) -> None:
    assert path in [wrong.field for wrong in tenant_contradictions(tenant(**said), POLICY)]


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"models": {"allow": ["small"], "deny": ["small"]}}, "models.deny.0"),
        ({"models": {"deny": ["unknown"]}}, "models.deny.0"),
        ({"models": {"allow": ["big", "small"]}}, "models.allow.0"),
        ({"models": {"deny": ["small"]}}, "models"),
        ({"limits": TOO_MUCH}, "limits.standard.limit_daily_credits_micro"),
    ],
)
def test_a_contradiction_of_a_users_layer_is_named_by_its_path(said: dict[str, Any], path: str) -> None:
    above = effective(POLICY, tenant(models={"deny": ["big"]}))
    assert path in [wrong.field for wrong in user_contradictions(user(**said), above)]


def test_a_layer_without_contradictions_has_none() -> None:
    layer = tenant(
        models={"allow": ["small"]}, own={"small": {"system_prompt": "x"}}, kill_switches={"disable_images": True}
    )
    assert not [*tenant_contradictions(layer, POLICY), *user_contradictions(user(limits=MOST), POLICY)]


def test_versions_are_compared_member_by_member_and_models_by_their_ids() -> None:
    before = {"model_catalog": [{"id": "a", "price": 1}, {"id": "b", "price": 1}], "kill_switches": {"x": True}}
    after = {"model_catalog": [{"id": "b", "price": 2}, {"id": "a", "price": 1}], "limits": 3}
    assert differences(before, after) == [
        LayerDifference(path="model_catalog.b.price", before=1, after=2),
        LayerDifference(path="kill_switches.x", before=True),
        LayerDifference(path="limits", after=3),
    ]


def test_a_list_without_ids_is_compared_as_a_whole() -> None:
    for before, after in (([{"name": "a"}], [{"name": "b"}]), (["idle"], ["idle", "other"]), ([{"id": "a"}, "b"], [])):
        assert differences({"deny": before}, {"deny": after}) == [
            LayerDifference(path="deny", before=before, after=after)
        ]
