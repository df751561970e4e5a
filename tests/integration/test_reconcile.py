"""Reconciliation finds every difference between quota items and turns, and none where there is none."""

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import boto3

from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.ledger import Account
from minichat.domain.settlement import Ending
from minichat.domain.turn import ToolCalls, TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import UsageEvent
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.reconcile import reconcile, repair
from minichat.services.rules import Rules
from minichat.services.send import Running, SendMessage, send
from minichat.settings import Settings, Store
from minichat.storage import keys, ledger, whole
from tests.builders import FIRST_OF_NEXT_MONTH, NOW, a_call, a_caller, a_model, a_policy, new_id

RULES = Rules(Settings(), a_policy(a_model(tier="premium", preference={"is_default": True})))


def some_turns(user: int = 2) -> ChatId:
    """A chat with an ended turn, a deleted one, and one that runs."""
    caller = a_caller(user=user)
    chat_id = chats.create(a_call(caller), chats.NewChat(), RULES).chat_id
    for number in range(3):
        running = send(a_call(caller), SendMessage(chat_id, "x", RequestId(str(uuid4()))), RULES)
        assert isinstance(running, Running)
        if number < 2:
            ending = Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5), tool_calls=ToolCalls(1, 2, 0))
            finalize(a_call(caller), running.turn, ending, RULES.settings)
        if number == 0:
            mutate.delete(a_call(caller), chat_id, running.turn.request_id, RULES.settings)
    return chat_id


def corrupted(store: Store, **added: int) -> None:
    """Adds to attributes of the first user's quota item, behind the product's back."""
    table: Any = boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(
        store.conversation_table
    )
    caller = a_caller()
    key = keys.quota(caller.tenant_id, caller.user_id, f"{NOW:%Y-%m}-01")._asdict()
    for name, value in added.items():
        table.update_item(
            Key=key,
            UpdateExpression="ADD #name :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": value},
        )


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
        assert isinstance(running, Running)
        finalize(call, running.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5)), RULES.settings)
    result = reconcile()
    assert (result.turns, result.accounts, result.differences) == (2, 1, [])


def test_every_difference_is_named_with_both_numbers(store: Store) -> None:
    some_turns(), some_turns(user=3)
    corrupted(store, total=7, total_r=-5, **{f"{NOW:%d}w": 1})
    result = reconcile()
    found = {(d.period, d.counted): d.says - d.turns_say for d in result.differences}
    month, day = f"{NOW:%Y-%m}", f"{NOW:%Y-%m-%d}"
    assert found == {(month, "total"): 7, (month, "total reserved"): -5, (day, "web searches"): 1}
    caller = a_caller()
    assert {d.account for d in result.differences} == {Account(caller.tenant_id, caller.user_id, f"{month}-01")}


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
        assert isinstance(running, Running)
        ending = Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5), tool_calls=ToolCalls(1, 2, 0))
        finalize(a_call(caller), running.turn, ending, RULES.settings)
    for image in whole.outbox(NOW - timedelta(days=1), NOW + timedelta(days=1)):
        if image["queue"]["S"] == "usage":
            ledger.book(UsageEvent.model_validate_json(image["payload"]["S"]), image["sk"]["S"], retention_days=400)
    assert reconcile().differences == []
    table: Any = boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(
        store.conversation_table
    )
    gone = [item for item in table.scan()["Items"] if item["pk"].endswith(chat_id)]
    for item in gone:
        table.delete_item(Key={"pk": item["pk"], "sk": item["sk"]})
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
