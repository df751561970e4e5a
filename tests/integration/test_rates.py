"""How fast a user may go: exact under racing, given back at each end, and put right when it is wrong."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from pynamodb.expressions.operand import Path

from minichat.domain.errors import RateLimited
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.rate_settings import RateSettings
from minichat.services import chats, orphans
from minichat.services.finalize import finalize
from minichat.services.mutate import retry
from minichat.services.new_turn import Replay, RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.reconcile_quota import reconcile, repair
from minichat.services.send import send
from minichat.settings import Settings, Store
from minichat.storage import quota
from tests.support.domain.builders import FIRST_OF_NEXT_MONTH, NOW, a_call, a_caller, a_model, a_policy, new_id
from tests.support.patience import PATIENCE
from tests.support.storage.invariants import Tables, violations
from tests.support.storage.racing import until_answered


def rules_with(**rates: int) -> Rules:
    """Rules that limit nothing but what is named."""
    none = dict.fromkeys(RateSettings.model_fields, 0)
    settings = Settings(rates=RateSettings(**{**none, **rates}))
    return Rules(settings, a_policy(a_model(preference={"is_default": True})))


def at(instant: datetime = NOW) -> Call:
    """A call of the user at this instant."""
    return Call(a_caller(), instant, new_id)


def in_new_chat(rules: Rules, call: Call | None = None) -> RunningTurn:
    """A turn that just began, in a chat of its own."""
    chat = chats.create(call or at(), chats.NewChat(), rules)
    outcome = send(call or at(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), rules)
    assert isinstance(outcome, RunningTurn)
    return outcome


def end(running: RunningTurn, rules: Rules, state: TurnState = TurnState.COMPLETED) -> None:
    finalize(a_call(), running.turn, Ending(state, text="a", usage=Usage(1, 1)), rules.settings)


def in_flight(store: Store) -> int:
    """What the quota items of all months count."""
    items = Tables.of(store).conversations
    return sum(int(item.get("fly", 0)) for item in items if item["sk"].startswith("QUOTA#"))


def raced(rules: Rules, count: int) -> list[RunningTurn | RateLimited]:
    """What so many sends into as many chats of one user, at the same moment, came to."""
    free, call = rules_with(), at()
    chat_ids = [chats.create(a_call(), chats.NewChat(), free).chat_id for _ in range(count)]
    start = threading.Barrier(count)

    def one(chat_id: ChatId) -> RunningTurn | RateLimited:
        command = SendMessage(chat_id, "x", RequestId(str(uuid4())))
        start.wait(PATIENCE)
        try:
            outcome = until_answered(lambda: send(call, command, rules))
        except RateLimited as refusal:
            return refusal
        assert isinstance(outcome, RunningTurn)
        return outcome

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, chat_ids))


@pytest.mark.parametrize(
    ("rates", "scope"), [({"turns_in_flight": 10}, "turns_in_flight"), ({"sends_per_minute": 10}, "sends_per_minute")]
)
def test_of_64_parallel_sends_exactly_those_start_that_the_limit_allows(
    store: Store, rates: dict[str, int], scope: str
) -> None:
    outcomes = raced(rules_with(**rates), 64)
    refused = [one for one in outcomes if isinstance(one, RateLimited)]
    assert len(refused) == 54
    assert {(one.scope, one.limit, one.whose) for one in refused} == {(scope, 10, "user")}
    assert all(1 <= one.retry_after_seconds <= 60 for one in refused)
    assert in_flight(store) == 10
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize("state", [TurnState.COMPLETED, TurnState.FAILED, TurnState.CANCELLED])
def test_a_turn_gives_its_place_back_however_it_ends(store: Store, state: TurnState) -> None:
    rules = rules_with(turns_in_flight=1)
    running = in_new_chat(rules)
    with pytest.raises(RateLimited):
        in_new_chat(rules)
    end(running, rules, state)
    end(running, rules, state)
    assert in_flight(store) == 0
    in_new_chat(rules)


def test_a_retry_counts_as_a_send_and_a_repeated_send_does_not(store: Store) -> None:
    rules = rules_with(sends_per_minute=2)
    chat = chats.create(a_call(), chats.NewChat(), rules)
    command = SendMessage(chat.chat_id, "x", RequestId(str(uuid4())))
    first = send(at(), command, rules)
    assert isinstance(first, RunningTurn)
    end(first, rules)
    second = retry(at(), chat.chat_id, command.request_id, RequestId(str(uuid4())), rules)
    end(second, rules)
    with pytest.raises(RateLimited) as refused:
        retry(at(), chat.chat_id, second.turn.request_id, RequestId(str(uuid4())), rules)
    assert (refused.value.scope, refused.value.retry_after_seconds) == ("sends_per_minute", 30)
    # Its answer is there: telling it again starts nothing.
    again = SendMessage(chat.chat_id, "x", second.turn.request_id)
    assert isinstance(send(a_call(), again, rules), Replay)


def test_a_turn_gives_its_place_back_in_the_month_in_which_it_began(store: Store) -> None:
    rules = rules_with(turns_in_flight=1)
    before = at(FIRST_OF_NEXT_MONTH - timedelta(seconds=1))
    old = in_new_chat(rules, before)
    after = at(FIRST_OF_NEXT_MONTH + timedelta(seconds=1))
    # A new month begins anew: for as long as the old month's turns run, there may be as many again.
    new = in_new_chat(rules, after)
    finalize(after, old.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), rules.settings)
    with pytest.raises(RateLimited):
        in_new_chat(rules, after)
    finalize(after, new.turn, Ending(TurnState.COMPLETED, text="a", usage=Usage(1, 1)), rules.settings)
    assert in_flight(store) == 0
    assert reconcile().differences == []


def test_turns_of_dead_processes_are_in_flight_until_the_watchdog_ends_them(store: Store) -> None:
    rules = rules_with(turns_in_flight=3)
    for _ in range(3):
        in_new_chat(rules)
    late = NOW + timedelta(seconds=rules.settings.orphan_watchdog.timeout_seconds + 1)
    with pytest.raises(RateLimited):
        in_new_chat(rules, at(late))
    assert orphans.sweep(late, new_id, rules.settings).finalized == 3
    assert in_flight(store) == 0
    in_new_chat(rules, at(late))


def test_a_wrong_number_of_turns_in_flight_is_found_and_put_right(store: Store) -> None:
    rules = rules_with(turns_in_flight=2)
    running = in_new_chat(rules)
    key = quota.key(a_caller().tenant_id, a_caller().user_id, a_call().now)
    quota.QuotaItem(*key).update([Path("fly").add(5)])
    with pytest.raises(RateLimited):
        in_new_chat(rules)
    found = reconcile().differences
    assert [(one.counted, one.says, one.turns_say) for one in found] == [("turns in flight", 6, 1)]
    assert repair(found) == 1
    end(running, rules)
    assert in_flight(store) == 0
