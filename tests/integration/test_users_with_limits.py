"""Limits of users as items: however many there are, a send costs the same, and publishing one is one write."""

import pytest

from minichat.domain.identity import TenantId
from minichat.domain.policy_layers import UserLayer
from minichat.services.policy_in_force import Rules
from minichat.settings import Settings, Store
from minichat.storage import policies
from minichat.storage.policies import MAX_USER_BYTES, of_user
from tests.support.domain.builders import NOW, a_caller, a_model, a_policy, new_id, some_limits
from tests.support.storage.faults import counted_calls
from tests.support.storage.many_users import cost_of_a_send, fill

USERS = 3_000
"""As many as a test has time for; `make users-with-limits` takes a million."""
RULES = Rules(Settings(), a_policy(a_model(preference={"is_default": True})))
ME = of_user(TenantId(a_caller().tenant_id), a_caller().user_id)


def publish(layer: UserLayer) -> list[str]:
    """The calls that publishing takes."""
    with counted_calls() as calls:
        policies.publish(layer, ME, at=NOW, by="operator", token=new_id(NOW))
    return calls


@pytest.mark.holds("turns.layers-cost")
def test_a_send_costs_the_same_with_none_and_with_thousands_and_publishing_is_one_write(store: Store) -> None:
    without = cost_of_a_send(RULES)
    assert sum(without.read_units) <= 10
    assert without.write_units > 0
    fill(0, USERS)
    assert cost_of_a_send(RULES) == without, "of a user without limits of their own"
    assert publish(UserLayer(limits=some_limits(10**12))) == ["BatchGetItem", "TransactWriteItems"]
    assert cost_of_a_send(RULES) == without, "of a user with their own"
    # Not even the largest layer that may be published is a unit more.
    room = MAX_USER_BYTES - len(UserLayer(models={"deny": [""]}).model_dump_json(exclude_unset=True))  # type: ignore[arg-type]
    publish(UserLayer.model_validate({"models": {"deny": ["x" * room]}}))
    assert cost_of_a_send(RULES) == without
