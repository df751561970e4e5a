"""Limits under parallel turns: what may start starts, and no item is ever above its limit."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import boto3
import pytest

from minichat.domain import errors
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.policy import LimitsByUser
from minichat.domain.settlement import Ending
from minichat.domain.turn import ToolCalls, TurnState
from minichat.domain.usage import Usage
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.reconcile_quota import reconcile
from minichat.services.send import send
from minichat.settings import Quota, Store
from minichat.storage import keys, quota, turns
from tests.conftest import fresh_tables
from tests.support.domain.builders import (
    FIRST_OF_NEXT_MONTH,
    NOW,
    a_call,
    a_caller,
    a_model,
    a_policy,
    new_id,
    some_limits,
    unhurried,
)
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations
from tests.support.storage.racing import until_answered


def rules_with(total: int, premium: int = 0, *, both_tiers: bool = False) -> Rules:
    models = [a_model(preference={"is_default": True})]
    if both_tiers:
        models.insert(0, a_model(id="large", tier="premium", preference={"is_default": True}))
    limits = LimitsByUser(default=some_limits(total=total, premium=premium))
    return Rules(unhurried(), a_policy(*models, user_limits=limits))


def reserve_of(rules: Rules) -> int:
    """Micro-credits that "x" reserves."""
    chat = chats.create(a_call(), chats.NewChat(), rules)
    running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    finalize(a_call(), running.turn, Ending(TurnState.CANCELLED, provider_called=False), rules.settings)
    return running.turn.reserve.credits_micro


def searching_rules(a_day: int, a_message: int = 2) -> Rules:
    """Rules by which a user may search the web so often."""
    model = a_model(preference={"is_default": True}, general_config={"tool_support": {"web_search": True}})
    quota = Quota(web_search_daily_quota=a_day, web_search_max_calls_per_message=a_message)
    return Rules(unhurried(quota=quota), a_policy(model))


def searches_of_today(store: Store) -> int:
    """What the quota item counts, made and set aside."""
    (item,) = (one for one in Tables.of(store).conversations if one["sk"].startswith("QUOTA#"))
    return int(item.get(f"{NOW:%d}w", 0))


def a_searching_turn(rules: Rules) -> RunningTurn:
    chat = chats.create(a_call(), chats.NewChat(), rules)
    running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4())), web_search=True), rules)
    assert isinstance(running, RunningTurn)
    return running


def raced(rules: Rules, count: int, *, web_search: bool = False) -> list[RunningTurn | str]:
    """What `count` sends into as many chats of one user, at the same moment, came to."""
    chat_ids = [chats.create(a_call(), chats.NewChat(), rules).chat_id for _ in range(count)]
    start = threading.Barrier(count)

    def one(chat_id: ChatId) -> RunningTurn | str:
        command = SendMessage(chat_id, "x", RequestId(str(uuid4())), web_search=web_search)
        start.wait(PATIENCE)
        try:
            outcome = until_answered(lambda: send(a_call(), command, rules))
        except errors.QuotaExceeded as refusal:
            return refusal.limit.scope
        assert isinstance(outcome, RunningTurn)
        return outcome

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, chat_ids))


@pytest.mark.holds("turns.no-overspend")
def test_of_32_parallel_chats_exactly_those_start_that_the_limit_allows(store: Store) -> None:
    reserve = reserve_of(rules_with(10**9))
    rules = rules_with(10 * reserve)
    outcomes = raced(rules, 32)
    started = [outcome for outcome in outcomes if isinstance(outcome, RunningTurn)]
    assert (len(started), outcomes.count("tokens")) == (10, 22)
    assert violations(Tables.of(store)) == []
    for running in started:
        finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), rules.settings)
    quota_use = quota.read(a_caller().tenant_id, a_caller().user_id, rules.policy.user_limits.default, a_call().now)
    assert quota_use.daily.total == 10 * (1 + 3)
    assert violations(Tables.of(store)) == []


def test_of_32_parallel_premium_chats_the_rest_is_downgraded(store: Store) -> None:
    reserve = reserve_of(rules_with(10**9, 10**9, both_tiers=True))
    rules = rules_with(10**9, 10 * reserve, both_tiers=True)
    outcomes = raced(rules, 32)
    decisions = [outcome.turn.reserve.decision for outcome in outcomes if isinstance(outcome, RunningTurn)]
    # A send that lost its credits in both its looks is refused, although a cheaper model would have done.
    assert decisions.count("allow") == 10
    assert decisions.count("downgrade") + outcomes.count("tokens") == 22
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("turns.web-search-day")
def test_parallel_turns_never_search_more_often_than_a_day_allows(any_engine: str) -> None:
    store, rules = fresh_tables(any_engine), searching_rules(a_day=7)
    outcomes = raced(rules, 32, web_search=True)
    started = [outcome for outcome in outcomes if isinstance(outcome, RunningTurn)]
    may = [running.turn.reserve.web_search_calls for running in started]
    # Who lost the last one in both its looks is told that searches are used up, not credits.
    assert outcomes.count("web_search") == 32 - len(started)
    assert (sum(may), searches_of_today(store)) == (7, 7)
    assert violations(Tables.of(store)) == []
    for running, calls in zip(started, may, strict=True):
        ending = Ending(TurnState.COMPLETED, text="a", tool_calls=ToolCalls(web_search=calls))
        assert finalize(a_call(), running.turn, ending, rules.settings)
    assert searches_of_today(store) == 7
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize(
    ("ending", "made"),
    [
        (Ending(TurnState.COMPLETED, text="a", tool_calls=ToolCalls(web_search=1)), 1),
        (Ending(TurnState.COMPLETED, text="a"), 0),
        (Ending(TurnState.FAILED, "provider_error", tool_calls=ToolCalls(web_search=2)), 2),
        (Ending(TurnState.CANCELLED, provider_called=False), 0),
        (Ending(TurnState.FAILED, "orphan_timeout"), 0),
    ],
)
@pytest.mark.holds("turns.given-back")
def test_searches_that_a_turn_did_not_make_are_given_back_at_its_end(store: Store, ending: Ending, made: int) -> None:
    rules = searching_rules(a_day=2)
    running = a_searching_turn(rules)
    with pytest.raises(errors.QuotaExceeded) as refusal:
        a_searching_turn(rules)
    assert refusal.value.limit.scope == "web_search"
    assert finalize(a_call(), running.turn, ending, rules.settings)
    assert searches_of_today(store) == made
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("turns.last-search")
def test_the_last_search_of_a_day_goes_to_a_turn_that_may_make_one(store: Store) -> None:
    rules = searching_rules(a_day=5)
    may = []
    for _ in range(3):
        running = a_searching_turn(rules)
        may.append(running.turn.reserve.web_search_calls)
        ending = Ending(TurnState.COMPLETED, text="a", tool_calls=ToolCalls(web_search=may[-1]))
        assert finalize(a_call(), running.turn, ending, rules.settings)
    assert (may, searches_of_today(store)) == ([2, 2, 1], 5)
    with pytest.raises(errors.QuotaExceeded):
        a_searching_turn(rules)


@pytest.mark.holds("turns.successor", "contract.keeps-attachments")
def test_a_retry_sets_the_searches_of_its_own_turn_aside(store: Store) -> None:
    rules = searching_rules(a_day=3)
    running = a_searching_turn(rules)
    ending = Ending(TurnState.COMPLETED, text="a", tool_calls=ToolCalls(web_search=2))
    assert finalize(a_call(), running.turn, ending, rules.settings)
    chat_id, target = running.turn.chat_id, running.turn.request_id
    again = mutate.retry(a_call(), chat_id, target, RequestId(str(uuid4())), rules)
    assert (again.turn.reserve.web_search_calls, searches_of_today(store)) == (1, 3)
    assert violations(Tables.of(store)) == []


def test_a_turn_that_an_earlier_version_began_settles_the_searches_that_it_made(store: Store) -> None:
    rules = searching_rules(a_day=75)
    running = a_searching_turn(rules)
    turn = running.turn
    # As that version stored it: nothing set aside, and nothing counted.
    table = boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(
        store.conversation_table
    )
    item = keys.turn(turn.tenant_id, turn.chat_id, turn.request_id)
    table.update_item(Key=item._asdict(), UpdateExpression="REMOVE r_web")
    month = keys.quota(turn.tenant_id, turn.requester_user_id, turn.reserve.monthly_period)
    table.update_item(
        Key=month._asdict(),
        UpdateExpression="REMOVE #day, #turns",
        ExpressionAttributeNames={"#day": f"{NOW:%d}w", "#turns": "turns"},
    )
    _, old = turns.read(turn.tenant_id, turn.chat_id, turn.request_id)
    assert old is not None
    assert reconcile().differences == []
    ending = Ending(TurnState.COMPLETED, text="a", tool_calls=ToolCalls(web_search=2))
    assert finalize(a_call(), old, ending, rules.settings)
    assert searches_of_today(store) == 2
    assert reconcile().differences == []


def test_searches_are_settled_into_the_day_in_which_their_turn_began(store: Store) -> None:
    rules = searching_rules(a_day=2)
    running = a_searching_turn(rules)
    tomorrow = replace(a_call(), now=NOW + timedelta(days=1))
    ending = Ending(TurnState.COMPLETED, text="a", tool_calls=ToolCalls(web_search=1))
    assert finalize(tomorrow, running.turn, ending, rules.settings)
    limits = rules.policy.user_limits.default
    then, now = (
        quota.read(tomorrow.caller.tenant_id, tomorrow.caller.user_id, limits, instant).daily.counts.web_search
        for instant in (NOW, tomorrow.now)
    )
    assert (then, now) == (1, 0)
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("turns.admission-first")
def test_a_retry_that_is_refused_for_quota_leaves_the_old_turn_as_it_was(store: Store) -> None:
    generous = rules_with(10**9)
    chat = chats.create(a_call(), chats.NewChat(), generous)
    running = send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), generous)
    assert isinstance(running, RunningTurn)
    finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), generous.settings)
    before = Tables.of(store)
    with pytest.raises(errors.QuotaExceeded):
        mutate.retry(a_call(), chat.chat_id, running.turn.request_id, RequestId(str(uuid4())), rules_with(100))
    assert Tables.of(store) == before


@pytest.mark.holds("turns.own-prices", "turns.finalize")
def test_a_turn_is_settled_into_the_period_in_which_it_began(store: Store) -> None:
    rules = rules_with(10**9)
    chat = chats.create(a_call(), chats.NewChat(), rules)
    caller = a_caller()
    before = Call(caller, FIRST_OF_NEXT_MONTH - timedelta(minutes=1), new_id)
    running = send(before, SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), rules)
    assert isinstance(running, RunningTurn)
    after = Call(caller, FIRST_OF_NEXT_MONTH, new_id)
    finalize(after, running.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), rules.settings)
    limits = rules.policy.user_limits.default
    then = quota.read(caller.tenant_id, caller.user_id, limits, before.now)
    assert (then.daily.total, then.monthly.total) == (4, 4)
    now = quota.read(caller.tenant_id, caller.user_id, limits, FIRST_OF_NEXT_MONTH)
    assert (now.daily.total, now.monthly.total) == (0, 0)
    assert violations(Tables.of(store)) == []
