"""Limits under parallel turns: what may start starts, and no item is ever above its limit."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest

from minichat.domain import errors
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.policy import LimitsByUser
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.rules import Rules
from minichat.services.send import Running, SendMessage, send
from minichat.settings import Settings, Store
from minichat.storage import quota
from tests.builders import FIRST_OF_NEXT_MONTH, a_call, a_caller, a_model, a_policy, new_id, some_limits
from tests.invariants import Tables, violations


def rules_with(total: int, premium: int = 0, *, both_tiers: bool = False) -> Rules:
    models = [a_model(preference={"is_default": True})]
    if both_tiers:
        models.insert(0, a_model(id="large", tier="premium", preference={"is_default": True}))
    limits = LimitsByUser(default=some_limits(total=total, premium=premium))
    return Rules(Settings(), a_policy(*models, user_limits=limits))


def reserve_of(rules: Rules) -> int:
    """Micro-credits that "x" reserves."""
    chat = chats.create(a_call(), chats.NewChat(), rules)
    running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), rules)
    assert isinstance(running, Running)
    finalize(a_call(), running.turn, Ending(TurnState.CANCELLED, provider_called=False), rules.settings)
    return running.turn.reserve.credits_micro


def raced(rules: Rules, count: int) -> list[Running | str]:
    """What `count` sends into as many chats of one user, at the same moment, came to."""
    chat_ids = [chats.create(a_call(), chats.NewChat(), rules).chat_id for _ in range(count)]
    start = threading.Barrier(count)

    def one(chat_id: ChatId) -> Running | str:
        start.wait(60)
        try:
            outcome = send(a_call(), SendMessage(chat_id, "x", RequestId(str(uuid4()))), rules)
        except errors.QuotaExceeded as refusal:
            return refusal.scope
        assert isinstance(outcome, Running)
        return outcome

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, chat_ids))


def test_of_32_parallel_chats_exactly_those_start_that_the_limit_allows(store: Store) -> None:
    reserve = reserve_of(rules_with(10**9))
    rules = rules_with(10 * reserve)
    outcomes = raced(rules, 32)
    started = [outcome for outcome in outcomes if isinstance(outcome, Running)]
    assert (len(started), outcomes.count("tokens")) == (10, 22)
    assert violations(Tables.of(store)) == []
    for running in started:
        finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), rules.settings)
    standing = quota.read(a_caller().tenant_id, a_caller().user_id, rules.policy.user_limits.default, a_call().now)
    assert standing.daily.total == 10 * (1 + 3)
    assert violations(Tables.of(store)) == []


def test_of_32_parallel_premium_chats_the_rest_is_downgraded(store: Store) -> None:
    reserve = reserve_of(rules_with(10**9, 10**9, both_tiers=True))
    rules = rules_with(10**9, 10 * reserve, both_tiers=True)
    outcomes = raced(rules, 32)
    decisions = [outcome.turn.reserve.decision for outcome in outcomes if isinstance(outcome, Running)]
    # A send that lost its credits in both its looks is refused, although a cheaper model would have done.
    assert decisions.count("allow") == 10
    assert decisions.count("downgrade") + outcomes.count("tokens") == 22
    assert violations(Tables.of(store)) == []


def test_a_retry_that_is_refused_for_quota_leaves_the_old_turn_as_it_was(store: Store) -> None:
    generous = rules_with(10**9)
    chat = chats.create(a_call(), chats.NewChat(), generous)
    running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), generous)
    assert isinstance(running, Running)
    finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), generous.settings)
    before = Tables.of(store)
    with pytest.raises(errors.QuotaExceeded):
        mutate.retry(a_call(), chat.chat_id, running.turn.request_id, RequestId(str(uuid4())), rules_with(100))
    assert Tables.of(store) == before


def test_a_turn_is_settled_into_the_period_in_which_it_began(store: Store) -> None:
    rules = rules_with(10**9)
    chat = chats.create(a_call(), chats.NewChat(), rules)
    caller = a_caller()
    before = Call(caller, FIRST_OF_NEXT_MONTH - timedelta(minutes=1), new_id)
    running = send(before, SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), rules)
    assert isinstance(running, Running)
    after = Call(caller, FIRST_OF_NEXT_MONTH, new_id)
    finalize(after, running.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), rules.settings)
    limits = rules.policy.user_limits.default
    then = quota.read(caller.tenant_id, caller.user_id, limits, before.now)
    assert (then.daily.total, then.monthly.total) == (4, 4)
    now = quota.read(caller.tenant_id, caller.user_id, limits, FIRST_OF_NEXT_MONTH)
    assert (now.daily.total, now.monthly.total) == (0, 0)
    assert violations(Tables.of(store)) == []
