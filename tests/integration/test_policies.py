"""Policy versions in the table: one wins, none changes, instances follow, and turns keep their prices."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from minichat.domain.identity import RequestId
from minichat.domain.policy import KillSwitches, Policy
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.moment import now
from minichat.services import chats
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import InForce, first_policy
from minichat.services.send import send
from minichat.settings import Settings, Store
from minichat.storage import policies, turns
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, new_id
from tests.support.patience import PATIENCE
from tests.support.storage.faults import answers_lost

TENANT = a_caller().tenant_id


def publish(policy: Policy, by: str = "operator") -> None:
    policies.publish(policy, at=NOW, by=by, token=new_id(NOW))


def version(number: int, **said: object) -> Policy:
    return a_policy(a_model(preference={"is_default": True}), policy_version=number, **said)


@pytest.mark.holds("turns.policy-file")
def test_until_one_is_published_the_file_is_in_force(store: Store) -> None:
    in_force = InForce(Settings())
    in_force.look(TENANT, 0)
    # What counts has what its models inherit.
    assert in_force.rules_of(TENANT).policy == first_policy(Settings()).in_deployment(Settings().deployment, now())
    assert policies.current_version() is None


@pytest.mark.holds("turns.follow-policy")
def test_an_instance_follows_within_its_seconds_and_not_at_every_call(store: Store) -> None:
    settings = Settings(policy_refresh_seconds=5)
    in_force = InForce(settings)
    publish(version(1))
    assert in_force.is_due(TENANT, 100)
    in_force.look(TENANT, 100)
    publish(version(2, kill_switches=KillSwitches(disable_web_search=True)))
    assert not in_force.is_due(TENANT, 104.9)
    assert in_force.rules_of(TENANT).policy.policy_version == 1
    assert in_force.is_due(TENANT, 105)
    in_force.look(TENANT, 105)
    assert in_force.rules_of(TENANT).policy.policy_version == 2
    assert in_force.rules_of(TENANT).policy.kill_switches == KillSwitches(disable_web_search=True)


@pytest.mark.holds("turns.follow-policy")
def test_while_the_store_is_silent_the_last_policy_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    in_force = InForce(Settings(policy_refresh_seconds=0))
    publish(version(1))
    in_force.look(TENANT, 0)
    publish(version(2))
    with answers_lost("BatchGetItem", 100):
        in_force.look(TENANT, 1)
    assert in_force.rules_of(TENANT).policy.policy_version == 1
    in_force.look(TENANT, 2)
    assert in_force.rules_of(TENANT).policy.policy_version == 2


@pytest.mark.parametrize("late", [1, 2])
@pytest.mark.holds("turns.publish")
def test_a_version_that_exists_or_came_before_is_refused_and_changes_nothing(store: Store, late: int) -> None:
    publish(version(1))
    publish(version(2))
    with pytest.raises(policies.VersionTaken) as refused:
        publish(version(late, kill_switches=KillSwitches(disable_images=True)))
    assert refused.value.current == 2
    assert policies.current_version() == 2
    assert [one.policy for one in policies.history(policies.DEPLOYMENT)] == [version(2), version(1)]


@pytest.mark.holds("turns.publish")
def test_of_eight_operators_who_publish_a_version_at_once_one_does(store: Store) -> None:
    for number in range(1, 6):
        start = threading.Barrier(8)

        def operate(name: str, number: int = number, start: threading.Barrier = start) -> str | None:
            start.wait(PATIENCE)
            try:
                publish(version(number), by=name)
            except policies.VersionTaken:
                return None
            return name

        with ThreadPoolExecutor(8) as pool:
            (winner,) = filter(None, pool.map(operate, "abcdefgh"))
        published = policies.read(number, policies.DEPLOYMENT)
        assert published is not None
        assert published.by == winner


def test_the_history_is_whole_however_long_it_is(store: Store) -> None:
    for number in range(3, 40, 3):
        publish(version(number))
    assert [one.policy.policy_version for one in policies.history(policies.DEPLOYMENT)] == list(range(39, 0, -3))


def test_a_policy_that_does_not_fit_an_item_is_refused(store: Store) -> None:
    noise = {str(uuid4()): {"standard": _limits(n), "premium": _limits(n)} for n in range(12_000)}
    limits = version(1).user_limits.model_dump() | {"users": noise}
    with pytest.raises(policies.PolicyTooLarge):
        publish(Policy.model_validate(version(1).model_dump() | {"user_limits": limits}))
    assert policies.current_version() is None


@pytest.mark.holds("turns.own-prices")
def test_a_turn_costs_what_its_own_version_says(store: Store) -> None:
    in_force = InForce(Settings(policy_refresh_seconds=0))
    publish(version(1))
    in_force.look(TENANT, 0)
    chat = chats.create(a_call(), chats.NewChat(), in_force.rules_of(TENANT))
    running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), in_force.rules_of(TENANT))
    assert isinstance(running, RunningTurn)
    # The new version has other prices, and no longer knows the model that is answering.
    publish(a_policy(a_model(id="other", output_tokens_credit_multiplier_micro=9_000_000), policy_version=2))
    in_force.look(TENANT, 1)
    ending = Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 10))
    assert finalize(a_call(), running.turn, ending, in_force.rules_of(TENANT).settings)
    _, settled = turns.read(chat.tenant_id, chat.chat_id, running.turn.request_id)
    assert settled is not None
    assert (settled.reserve.policy_version, settled.committed_credits_micro) == (1, 10 + 30)


@pytest.mark.holds("contract.create")
def test_a_chat_keeps_the_model_that_was_chosen_when_it_was_made(store: Store) -> None:
    in_force = InForce(Settings(policy_refresh_seconds=0))
    publish(version(1))
    in_force.look(TENANT, 0)
    chat = chats.create(a_call(), chats.NewChat(), in_force.rules_of(TENANT))
    publish(a_policy(a_model(), a_model(id="other", preference={"is_default": True}), policy_version=2))
    in_force.look(TENANT, 1)
    assert chats.create(a_call(), chats.NewChat(), in_force.rules_of(TENANT)).model == "other"
    assert chats.get(a_call(), chat.chat_id).model == chat.model == "small"
    running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), in_force.rules_of(TENANT))
    assert isinstance(running, RunningTurn)
    assert (running.turn.reserve.effective_model, running.turn.reserve.decision) == ("small", "allow")


def _limits(number: int) -> dict[str, int]:
    return {"limit_daily_credits_micro": number**3, "limit_monthly_credits_micro": number**4}
