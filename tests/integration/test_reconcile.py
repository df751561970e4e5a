"""Reconciliation finds every difference between quota items and turns, and none where there is none."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.reconcile import handler as daily
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId
from minichat.domain.quota_recount import QuotaAccount
from minichat.domain.settlement import Ending
from minichat.domain.turn import ToolCalls, Turn, TurnState
from minichat.domain.usage import Usage
from minichat.domain.usage_ledger import LedgerSums
from minichat.events.payloads import UsageEvent
from minichat.services import chats, mutate, reconcile_reading, reconcile_usage
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.provider_leftovers import CLEANED
from minichat.services.reconcile_quota import Undecided, reconcile, repair
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import chats as stored_chats
from minichat.storage import keys, reconcile_reports, scan, turns, usage_ledger
from minichat.storage.items import READ_ATTEMPTS
from minichat.storage.transact import patience
from tests.conftest import fresh_tables
from tests.support.domain.builders import (
    FIRST_OF_NEXT_MONTH,
    NOW,
    a_call,
    a_caller,
    a_model,
    a_policy,
    new_id,
    unhurried,
)
from tests.support.patience import PATIENCE
from tests.support.storage.faults import answered_instead, counted_calls, refused
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(tier="premium", preference={"is_default": True})))


def some_turns(user: int = 2) -> ChatId:
    """A chat with an ended turn, a deleted one, and one that runs."""
    caller = a_caller(user=user)
    chat_id = chats.create(a_call(caller), chats.NewChat(), RULES).chat_id
    for number in range(3):
        running = send(a_call(caller), SendMessage(chat_id, "x", RequestId(str(uuid4()))), RULES)
        assert isinstance(running, RunningTurn)
        if number < 2:
            ending = Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5), tool_calls=ToolCalls(1, 2, 0))
            finalize(a_call(caller), running.turn, ending, RULES.settings)
        if number == 0:
            mutate.delete(a_call(caller), chat_id, running.turn.request_id, RULES.settings)
    return chat_id


def table_of(store: Store) -> Any:
    """The conversation table, behind the product's back."""
    return boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(
        store.conversation_table
    )


def corrupted(store: Store, **added: int) -> None:
    """Adds to attributes of the first user's quota item."""
    caller = a_caller()
    changed(store, keys.quota(caller.tenant_id, caller.user_id, f"{NOW:%Y-%m}-01"), **added)


def changed(store: Store, key: keys.Key, **added: int) -> None:
    """Adds to attributes of an item."""
    for name, value in added.items():
        table_of(store).update_item(
            Key=key._asdict(),
            UpdateExpression="ADD #name :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": value},
        )


def spoilt(store: Store, item: dict[str, Any]) -> None:
    """Makes an item one that this version cannot read: what it counts, or how it stands, is of another kind."""
    name = next(name for name in ("state", "total", "micro", "messages") if name in item)
    table_of(store).update_item(
        Key={"pk": item["pk"], "sk": item["sk"]},
        UpdateExpression="SET #name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": ["of a later version"]},
    )


def removed(store: Store, *items: dict[str, Any]) -> None:
    """What has expired disappears."""
    for item in items:
        table_of(store).delete_item(Key={"pk": item["pk"], "sk": item["sk"]})


def all_booked() -> None:
    """The consumer of usage events has caught up."""
    for image in scan.outbox(NOW - timedelta(days=1), NOW + timedelta(days=400)):
        if image["queue"]["S"] == "usage":
            usage_ledger.book(
                UsageEvent.model_validate_json(image["payload"]["S"]), image["sk"]["S"], retention_days=400
            )


def an_ended_turn(caller: Caller | None = None, usage: Usage = Usage(10, 5)) -> Turn:
    """A turn in a chat of its own that has been answered."""
    caller = caller or a_caller()
    chat_id = chats.create(a_call(caller), chats.NewChat(), RULES).chat_id
    running = send(a_call(caller), SendMessage(chat_id, "x", RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    finalize(a_call(caller), running.turn, Ending(TurnState.COMPLETED, text="hi", usage=usage), RULES.settings)
    return running.turn


def of_chat(store: Store, turn: Turn) -> list[dict[str, Any]]:
    """Everything that there is of a turn's chat."""
    return [item for item in Tables.of(store).conversations if item["pk"].endswith(turn.chat_id)]


def later() -> datetime:
    """Long enough after everything for all of it to be in the ledger."""
    return a_call().now + timedelta(minutes=15)


@pytest.mark.holds("turns.books")
def test_a_sound_store_has_no_difference(store: Store) -> None:
    some_turns(), some_turns(), some_turns(user=3)
    result = reconcile()
    assert (result.turns, result.accounts, result.differences, result.undecided) == (9, 2, [], [])


def test_the_first_day_of_a_month_and_the_month_are_two_periods(store: Store) -> None:
    caller = a_caller()
    first = Call(caller, FIRST_OF_NEXT_MONTH + timedelta(hours=12), new_id)
    chat_id = chats.create(first, chats.NewChat(), RULES).chat_id
    for day in (1, 2):
        call = replace(first, now=first.now.replace(day=day))
        running = send(call, SendMessage(chat_id, "x", RequestId(str(uuid4()))), RULES)
        assert isinstance(running, RunningTurn)
        finalize(call, running.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5)), RULES.settings)
    result = reconcile()
    assert (result.turns, result.accounts, result.differences) == (2, 1, [])


@pytest.mark.holds("turns.every-difference")
def test_every_difference_is_named_with_both_numbers(store: Store) -> None:
    some_turns(), some_turns(user=3)
    corrupted(store, total=7, total_r=-5, **{f"{NOW:%d}w": 1})
    result = reconcile()
    found = {(d.period, d.counted): d.says - d.turns_say for d in result.differences}
    month, day = f"{NOW:%Y-%m}", f"{NOW:%Y-%m-%d}"
    assert found == {(month, "total"): 7, (month, "total reserved"): -5, (day, "web searches"): 1}
    caller = a_caller()
    assert {d.account for d in result.differences} == {QuotaAccount(caller.tenant_id, caller.user_id, f"{month}-01")}


def test_what_differs_is_repaired_unless_it_moved_since(store: Store) -> None:
    some_turns()
    corrupted(store, total=7, premium_r=5000, **{f"{NOW:%d}t": 9, f"{NOW:%d}c": 4})
    found = reconcile().differences
    assert len(found) == 4
    corrupted(store, total=1)
    assert repair(found) == 0
    assert repair(reconcile().differences) == 4
    assert reconcile().differences == []


def test_turns_that_went_with_their_chat_are_in_the_ledger_still(store: Store) -> None:
    caller = a_caller()
    chat_id = chats.create(a_call(caller), chats.NewChat(), RULES).chat_id
    for _ in range(3):
        running = send(a_call(caller), SendMessage(chat_id, "x", RequestId(str(uuid4()))), RULES)
        assert isinstance(running, RunningTurn)
        ending = Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5), tool_calls=ToolCalls(1, 2, 0))
        finalize(a_call(caller), running.turn, ending, RULES.settings)
    all_booked()
    assert reconcile().differences == []
    removed(store, *(item for item in Tables.of(store).conversations if item["pk"].endswith(chat_id)))
    result = reconcile()
    assert (result.turns, result.differences) == (0, [])
    corrupted(store, total=1)
    assert [(d.counted, d.says - d.turns_say) for d in reconcile().differences] == [("total", 1)]


def test_only_the_tenant_that_is_asked_for_is_compared(store: Store) -> None:
    some_turns()
    corrupted(store, total=7)
    assert reconcile(a_caller(tenant=9).tenant_id).accounts == 0
    assert len(reconcile(a_caller().tenant_id).differences) == 1


def test_a_service_at_work_is_no_difference(store: Store) -> None:
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            some_turns()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            assert reconcile().differences == []
    finally:
        done.set()
        worker.join()


def test_turns_that_are_found_nowhere_are_no_proof_that_they_never_were(store: Store) -> None:
    gone, kept = an_ended_turn(), an_ended_turn()
    # Its chat has expired, and its usage event waits in a dead-letter queue.
    removed(store, *of_chat(store, gone))
    result = reconcile()
    caller = a_caller()
    account = QuotaAccount(caller.tenant_id, caller.user_id, kept.reserve.monthly_period)
    assert (result.differences, result.undecided) == ([], [Undecided(account, "turns of it are not found")])
    all_booked()
    result = reconcile()
    assert (result.differences, result.undecided) == ([], [])


def test_an_account_without_an_item_has_expired(store: Store) -> None:
    an_ended_turn()
    removed(store, *(item for item in Tables.of(store).conversations if item["sk"].startswith("QUOTA#")))
    assert reconcile().differences == []
    # With the next turn there is an item again, which says what is wrong.
    an_ended_turn()
    found = {one.counted for one in reconcile().differences}
    assert found == {"total", "premium", "calls", "input tokens", "output tokens"}
    assert repair(reconcile().differences) == 7
    assert reconcile().differences == []


def test_a_missing_entry_is_told_as_long_as_its_account_is_kept(store: Store) -> None:
    turn = an_ended_turn()
    named = [one.where for one in reconcile_usage.prove(later()).mismatches]
    assert named == [f"ledger entry of turn {turn.turn_id}"]
    first = datetime.fromisoformat(f"{turn.reserve.monthly_period}T00:00:00+00:00")
    expires = first + timedelta(days=RULES.settings.quota.retention_days)
    for before, count in (
        (reconcile_usage.EXPIRY_MARGIN + timedelta(seconds=1), 1),
        (reconcile_usage.EXPIRY_MARGIN, 0),
    ):
        assert len(reconcile_usage.prove(expires - before).mismatches) == count


def test_an_entry_that_came_while_the_table_was_read_is_no_mismatch(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_ended_turn()
    original = scan.items

    def read() -> Iterator[Any]:
        before = list(original())
        all_booked()
        yield from before

    monkeypatch.setattr(scan, "items", read)
    assert reconcile_usage.prove(later()).mismatches == []


def test_the_totals_of_a_day_are_compared_until_something_of_it_may_have_expired(store: Store) -> None:
    turn = an_ended_turn()
    all_booked()
    _, ended = turns.read(turn.tenant_id, turn.chat_id, turn.request_id)
    assert ended is not None
    assert ended.completed_at is not None
    day, expires = ended.completed_at.date().isoformat(), ended.completed_at + timedelta(days=400)
    changed(store, keys.usage(turn.tenant_id, day), micro=7)
    for before, count in (
        (reconcile_usage.EXPIRY_MARGIN + timedelta(seconds=1), 1),
        (reconcile_usage.EXPIRY_MARGIN, 0),
    ):
        assert sum(one.total is not None for one in reconcile_usage.prove(expires - before).mismatches) == count


@pytest.mark.parametrize("kind", ["TURN#", "CHAT", "QUOTA#", "#L#", "#USAGE"])
def test_one_item_that_cannot_be_read_is_told_and_the_others_are_compared(store: Store, kind: str) -> None:
    an_ended_turn(), an_ended_turn(a_caller(user=3)), an_ended_turn(a_caller(tenant=9))
    all_booked()
    mine = [item for item in Tables.of(store).conversations if item["pk"].startswith(keys.prefix(a_caller().tenant_id))]
    spoilt(store, next(item for item in mine if kind in item["sk"] or kind in item["pk"]))
    found = reconcile_reading.read()
    assert len(found.unreadable) == 1
    # Of what it belongs to nothing is said, and of the rest that it agrees.
    result, metered = reconcile(books=found), reconcile_usage.prove(later(), books=found)
    assert (result.differences, metered.mismatches) == ([], [])
    other = a_caller(tenant=9)
    changed(store, keys.usage(other.tenant_id, NOW.date().isoformat()), micro=7)
    changed(store, keys.quota(other.tenant_id, other.user_id, f"{NOW:%Y-%m}-01"), total=7)
    found = reconcile_reading.read()
    result, metered = reconcile(books=found), reconcile_usage.prove(later(), books=found)
    assert [(one.account.tenant_id, one.says - one.turns_say) for one in result.differences] == [(other.tenant_id, 7)]
    assert [one.tenant_id for one in metered.mismatches] == [other.tenant_id]
    assert repair(result.differences) + reconcile_usage.repair(metered.mismatches, retention_days=400) == 2


def test_a_throttled_page_is_read_again_and_not_the_end_of_everything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_turns()
    with answered_instead("Scan", [refused("ThrottlingException"), refused("InternalServerError", status=500)]):
        assert reconcile().turns == 3
    with answered_instead("Scan", [refused("AccessDeniedException")]), pytest.raises(ServiceUnavailable):
        reconcile()
    monkeypatch.setattr(scan, "PATIENCE_SECONDS", 0)
    with answered_instead("Scan", [refused("ThrottlingException")] * 9), pytest.raises(ServiceUnavailable):
        reconcile()


def test_an_account_that_the_store_does_not_answer_for_keeps_no_other_from_being_compared(store: Store) -> None:
    for user in (2, 3):
        caller = a_caller(user=user)
        an_ended_turn(caller)
        changed(store, keys.quota(caller.tenant_id, caller.user_id, f"{NOW:%Y-%m}-01"), total=7)
    with answered_instead("BatchGetItem", [refused("ValidationException")] * READ_ATTEMPTS):
        result = reconcile()
    assert (len(result.differences), [one.reason for one in result.undecided]) == (1, ["the store did not answer"])
    found = reconcile().differences
    with patience(0), answered_instead("UpdateItem", [refused("ProvisionedThroughputExceededException")] * 99):
        assert repair(found) == 0
    assert repair(found) == 2


def test_one_reading_of_the_table_serves_all_comparisons(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    some_turns()
    all_booked()
    corrupted(store, total=7)
    chats.delete(a_call(), an_ended_turn().chat_id)  # and nobody cleans it up
    monkeypatch.setattr(daily, "now", lambda: later() + CLEANED)
    monkeypatch.setattr(daily, "current", lambda: RULES.settings)
    with counted_calls() as calls:
        result = daily.handler({}, None)
    assert (result["quota"], result["left_over"]) == (1, 1)
    assert calls.count("Scan") == 1
    assert {one.counted for one in reconcile().differences} == set()


def test_a_run_leaves_a_report_for_the_deployment_and_one_for_each_tenant_in_which_it_found_something(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_turns()
    turn, secret = an_ended_turn(a_caller(user=3)), "what a person wrote"
    all_booked()
    corrupted(store, total=7)
    key = keys.turn(turn.tenant_id, turn.chat_id, turn.request_id)
    raw = next(one for one in scan.items() if keys.of(one) == key)
    boto3.client("dynamodb", endpoint_url=store.endpoint, region_name=store.region).put_item(
        TableName=store.conversation_table, Item={**raw, "state": {"S": secret}}
    )
    at = later()
    monkeypatch.setattr(daily, "now", lambda: at)
    monkeypatch.setattr(daily, "current", lambda: RULES.settings)
    result = daily.handler({}, None)
    ((run, found),) = reconcile_reports.runs(at + timedelta(seconds=1), 10)
    assert (run.at, run.repaired, run.turns > 0) == (at, result["repaired"], True)
    counted = {kind: found.counts.get(kind, 0) for kind in ("quota", "ledger", "left_over", "unreadable", "undecided")}
    assert counted == {kind: result[kind] for kind in counted}
    assert counted["quota"] == counted["unreadable"] == 1
    assert secret not in str(found)
    assert reconcile_reports.runs(at, 10) == []
    tenant = a_caller().tenant_id
    assert reconcile_reports.of_tenant(tenant, [at])[at].counts == found.counts
    assert reconcile_reports.of_tenant(TenantId("another"), [at])[at].counts == {}


def usage_event(**said: Any) -> UsageEvent:
    """The usage event of a turn, or, without a turn's id, of a task of the system."""
    caller = a_caller()
    values: dict[str, Any] = {
        "tenant_id": caller.tenant_id,
        "user_id": caller.user_id,
        "chat_id": str(uuid4()),
        "turn_id": str(uuid4()),
        "request_id": str(uuid4()),
        "requester_type": "user",
        "selected_model": "small",
        "effective_model": "small",
        "terminal_state": "completed",
        "billing_outcome": "completed",
        "settlement_method": "actual",
        "usage": {"input_tokens": 10, "output_tokens": 5},
        "reserved_credits_micro": 0,
        "actual_credits_micro": 7,
        "committed_credits_micro": 7,
        "policy_version_applied": 1,
        "timestamp": NOW,
    }
    return UsageEvent(**(values | said))


def a_booking(tokens: int, *, of_the_system: bool) -> bool:
    """Books what a turn or a task used."""
    task = {"user_id": None, "turn_id": None, "system_task_type": "thread_summary_update", "committed_credits_micro": 0}
    said = {"usage": {"input_tokens": tokens, "output_tokens": 1}, **(task if of_the_system else {})}
    return usage_ledger.book(usage_event(**said), new_id(NOW), retention_days=400)


DAY = NOW.date().isoformat()
COUNTED = {"turns": "turns", "micro": "committed_micro", "in": "input_tokens", "web": "web_searches"}
BOOKINGS = st.lists(st.tuples(st.integers(0, 1000), st.booleans()), max_size=3)
DRIFTS = st.dictionaries(st.sampled_from(sorted(COUNTED)), st.integers(-3, 3), max_size=3)


def excess() -> dict[str, int]:
    """By how much the tenant's total of the day is above the sum of its entries, in what is not 0."""
    tenant = a_caller().tenant_id
    entries = sum((one.used for one in usage_ledger.entries(tenant, DAY)), LedgerSums())
    (says,) = (one.used for one in usage_ledger.totals(tenant, DAY, DAY) if one.user_id is None)
    difference = {name: getattr(says, member) - getattr(entries, member) for name, member in COUNTED.items()}
    return {name: count for name, count in difference.items() if count}


@hypothesis.settings(max_examples=30, suppress_health_check=list(hypothesis.HealthCheck))
@given(rounds=st.lists(st.tuples(DRIFTS, BOOKINGS), min_size=1, max_size=4))
def test_whatever_comes_between_look_and_repair_no_booking_is_lost(engine: str, rounds: list[Any]) -> None:
    store, off = fresh_tables(engine), Counter[str]()
    a_booking(10, of_the_system=False)
    for drift, bookings in rounds:
        changed(store, keys.usage(a_caller().tenant_id, DAY), **drift)
        off.update(drift)
        found = reconcile_usage.prove(NOW - timedelta(days=1)).mismatches
        for tokens, of_the_system in bookings:
            a_booking(tokens, of_the_system=of_the_system)
        if reconcile_usage.repair(found, retention_days=400):
            # What was as it was seen is right again, all of it.
            off.clear()
        assert excess() == {name: count for name, count in off.items() if count}


def test_repairs_beside_a_consumer_at_work_lose_no_booking(any_engine: str) -> None:
    store = fresh_tables(any_engine)
    a_booking(10, of_the_system=False)
    start, done = threading.Barrier(3), threading.Event()

    def reconcile_books(of_the_system: bool) -> None:
        start.wait(PATIENCE)
        for tokens in range(40):
            a_booking(tokens, of_the_system=of_the_system)

    def drifts_and_repairs() -> int:
        start.wait(PATIENCE)
        off = 0
        while not done.is_set():
            changed(store, keys.usage(a_caller().tenant_id, DAY), micro=1)
            repaired = reconcile_usage.repair(
                reconcile_usage.prove(NOW - timedelta(days=1)).mismatches, retention_days=400
            )
            off = 0 if repaired else off + 1
        return off

    with ThreadPoolExecutor(3) as pool:
        repairing = pool.submit(drifts_and_repairs)
        for one in [pool.submit(reconcile_books, of_the_system) for of_the_system in (False, True)]:
            one.result()
        done.set()
        left = repairing.result()
    assert excess() == ({"micro": left} if left else {})
    assert len(list(usage_ledger.entries(a_caller().tenant_id, DAY))) == 81


def test_repairs_beside_a_service_at_work_take_away_what_was_wrong_and_nothing_else(any_engine: str) -> None:
    store = fresh_tables(any_engine)
    some_turns()
    corrupted(store, total=7, total_r=-3)
    start, done = threading.Barrier(3), threading.Event()

    def works() -> None:
        start.wait(PATIENCE)
        for _ in range(6):
            some_turns()

    def repairs() -> None:
        start.wait(PATIENCE)
        while not done.is_set():
            repair(reconcile().differences)

    with ThreadPoolExecutor(3) as pool:
        repairing = pool.submit(repairs)
        for one in [pool.submit(works) for _ in range(2)]:
            one.result()
        done.set()
        repairing.result()
    left = {one.counted: one.says - one.turns_say for one in reconcile().differences}
    assert left in ({}, {"total": 7, "total reserved": -3})
    repair(reconcile().differences)
    assert violations(Tables.of(store)) == []


def test_a_difference_is_found_once_its_account_stands_still(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    some_turns()
    corrupted(store, total=7)
    original, moves = stored_chats.ids_of, [1, 2, 3]

    def moving(*of: Any) -> Iterator[ChatId]:
        # Between the first reading of the item and that of the turns, again and again.
        if moves and moves.pop():
            an_ended_turn()
        return original(*of)

    monkeypatch.setattr(stored_chats, "ids_of", moving)
    result = reconcile()
    assert ([one.says - one.turns_say for one in result.differences], result.undecided) == ([7], [])


def test_turns_that_expire_while_their_account_is_looked_at_are_in_the_ledger_still(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, _ = an_ended_turn(), an_ended_turn()
    all_booked()
    corrupted(store, total=7)
    original = scan.items

    def read() -> Iterator[Any]:
        yield from list(original())
        removed(store, *of_chat(store, gone))

    monkeypatch.setattr(scan, "items", read)
    result = reconcile()
    assert ([one.says - one.turns_say for one in result.differences], result.undecided) == ([7], [])
