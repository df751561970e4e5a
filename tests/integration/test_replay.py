"""Counterexamples of the models, replayed against the real code. Every test says what SHOULD hold: one that fails is a
fault that is real. Copy to tests/integration/ of a checkout and run `pytest tests/integration/test_replay.py`.

Pauses are injected by wrapping one function of the product, so that another process's step comes between two of its.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import boto3
import httpx2
import pytest

from minichat import greenlets
from minichat.domain import errors, orphan
from minichat.domain.attachment import VectorStore
from minichat.domain.cleanup import CleanupOutcome
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.stream import Told
from minichat.domain.turn import ToolCalls, Turn, TurnState
from minichat.domain.usage import Usage
from minichat.events.payloads import ChatCleanup, UsageEvent
from minichat.providers.chunks import Completed, ProviderChunk, TextDelta
from minichat.services import (
    chat_purge,
    chats,
    generate,
    mutate,
    orphans,
    provider_cleanup,
    reconcile_usage,
    stream_record,
)
from minichat.services.cancel import cancel
from minichat.services.finalize import Teller, finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.reconcile_quota import reconcile, repair
from minichat.services.send import send
from minichat.services.stream_record import Transcript
from minichat.services.stream_resume import follow, resume
from minichat.settings import Quota, Store
from minichat.storage import (
    attachment_steps,
    attachments,
    keys,
    leases,
    parts,
    scan,
    turns,
    usage_ledger,
    vector_stores,
)
from minichat.storage import chats as stored_chats
from tests.integration.test_generate import Scripted, begun, some_rules
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.services.events import each
from tests.support.services.ready_files import announced, ready
from tests.support.storage.faults import answered_instead, answers_lost, counted_calls, refused
from tests.support.storage.invariants import Tables, violations

RULES = Rules(
    unhurried(),
    a_policy(
        a_model(
            preference={"is_default": True},
            general_config={"tool_support": {"file_search": True, "web_search": True}},
        )
    ),
)
TIMEOUT = timedelta(seconds=RULES.settings.orphan_watchdog.timeout_seconds)


def a_chat() -> ChatId:
    return chats.create(a_call(), chats.NewChat(), RULES).chat_id


def a_running(chat_id: ChatId | None = None, call: Call | None = None, **said: Any) -> RunningTurn:
    command = SendMessage(chat_id or a_chat(), "hello", RequestId(str(uuid4())), **said)
    running = send(call or a_call(), command, RULES)
    assert isinstance(running, RunningTurn)
    return running


def stored(turn: Turn) -> Turn:
    found = turns.read(turn.tenant_id, turn.chat_id, turn.request_id)[1]
    assert found is not None
    return found


def at(turn: Turn, after: timedelta) -> Call:
    return Call(a_call().caller, turn.started_at + after, new_id)


def raw_table(store: Store) -> Any:
    return boto3.resource("dynamodb", endpoint_url=store.endpoint, region_name=store.region).Table(
        store.conversation_table
    )


def without_time_to_live(store: Store, chat_id: ChatId) -> list[str]:
    return [
        item["sk"]
        for item in Tables.of(store).conversations
        if item["pk"].endswith(f"#C#{chat_id}") and "expires_at" not in item
    ]


def cleanup_event(call: Call, chat_id: ChatId) -> ChatCleanup:
    return ChatCleanup(
        tenant_id=call.caller.tenant_id,
        chat_id=chat_id,
        user_id=call.caller.user_id,
        system_request_id=new_id(call.now),
        chat_deleted_at=call.now,
    )


# --- P1: purge.pml ---------------------------------------------------------------------------------------------------


def test_p1_a_chat_is_not_purged_while_its_turn_lives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that gives a sign of life between look and end runs on, and the purge waits for it.

    The fault: `end_if_dead` said that a turn has ended when only its end was tried.
    """
    running = a_running()
    turn = running.turn
    chats.delete(at(turn, timedelta(seconds=1)), turn.chat_id)
    late = at(turn, orphan.CANCEL_PATIENCE)  # silent since it was asked to stop: looks dead

    original = parts.after

    def pause(*args: Any, **more: Any) -> Any:
        # Between look and end: the process, which was stalled, goes on.
        leases.progress(late, turn, provider_called=True)
        return original(*args, **more)

    monkeypatch.setattr(parts, "after", pause)
    refused_to = False
    try:
        chat_purge.expire(cleanup_event(late, turn.chat_id), RULES.settings, late.now, new_id)
    except chat_purge.StillRunning:
        refused_to = True
    monkeypatch.setattr(parts, "after", original)
    # The process sees the flag and ends its turn, with its text.
    end = finalize(late, turn, Ending(TurnState.CANCELLED, text="so far"), RULES.settings)
    assert end is not None
    left = without_time_to_live(store, turn.chat_id)
    assert refused_to or not left, f"purged, message deleted; these stay for ever: {left}"


# --- P2: cleanup.pml -------------------------------------------------------------------------------------------------


def test_p2_a_vector_store_claimed_after_the_purge_does_not_stay(store: Store) -> None:
    """Nobody claims a store in a chat that is deleted, so no item of it comes after its purge.

    The fault: the chat_cleanup handler purges first and cleans up then; an ingest worker claimed a store in between.
    """
    call = a_call()
    chat = chats.create(call, chats.NewChat(), RULES)
    attachment = announced(a_call(), chat, RULES, "application/pdf", "a.pdf")
    now = a_call().now
    assert attachment_steps.take(attachment, "w", now=now, until=now + timedelta(seconds=300))
    assert attachment_steps.uploaded(attachment, "w", "file-1")
    chats.delete(a_call(), chat.chat_id)

    deleted = a_call()
    chat_purge.expire(cleanup_event(deleted, chat.chat_id), RULES.settings, deleted.now, new_id)
    assert without_time_to_live(store, chat.chat_id) == []
    # The worker, which has not heard of the deletion, claims the chat's store and names it.
    taken = attachments.read(chat.tenant_id, chat.chat_id, attachment.attachment_id)
    assert taken is not None
    claim = VectorStore(
        chat.tenant_id,
        chat.chat_id,
        "openai",
        claimed_by="w",
        claimed_at=now,
        claimed_until=now + timedelta(seconds=60),
    )
    claimed = vector_stores.claim(claim, taken, "w", token=new_id(a_call().now))
    left = without_time_to_live(store, chat.chat_id)
    assert not claimed or not left, f"an item of a purged chat without a time to live: {left}"


class Provider:
    """Deletes everything it is asked to; `meanwhile` happens during the first deletion of a file."""

    def __init__(self, meanwhile: Any) -> None:
        self._meanwhile = [meanwhile]

    def ask(self, _tenant: str, _provider: str, method: str, kind: str, *_rest: str) -> httpx2.Response:
        if (method, kind) == ("DELETE", "files") and self._meanwhile:
            self._meanwhile.pop()()
        return httpx2.Response(204)


def test_p2_end_to_end_with_the_real_cleanup(store: Store) -> None:
    """A cleanup that ends DONE has left no item without a time to live.

    The fault: two files of a chat on their way in; the chat is deleted. While the cleanup deletes the first file, the
    worker of the second claimed and named the chat's store.
    """
    chat = chats.create(a_call(), chats.NewChat(), RULES)
    now = a_call().now
    both = [announced(a_call(), chat, RULES, "application/pdf", f"{n}.pdf") for n in "ab"]
    for number, one in enumerate(both):
        assert attachment_steps.take(one, f"w{number}", now=now, until=now + timedelta(seconds=300))
        assert attachment_steps.uploaded(one, f"w{number}", f"file-{number}")
    chats.delete(a_call(), chat.chat_id)
    claim = VectorStore(
        chat.tenant_id,
        chat.chat_id,
        "openai",
        claimed_by="w1",
        claimed_at=now,
        claimed_until=now + timedelta(seconds=60),
    )

    def meanwhile() -> None:
        if vector_stores.claim(claim, both[1], "w1", token=new_id(a_call().now)):
            assert vector_stores.name(claim, "w1", "vs-1")

    deleted = a_call()
    chat_purge.expire(cleanup_event(deleted, chat.chat_id), RULES.settings, deleted.now, new_id)
    means = provider_cleanup.CleanupDeps(Provider(meanwhile), RULES.settings.cleanup, lambda: a_call().now)  # type: ignore[arg-type]
    outcome = provider_cleanup.clean_chat_resources(
        chat.tenant_id, chat.chat_id, means, ends_at=now + timedelta(days=1)
    )
    left = without_time_to_live(store, chat.chat_id)
    assert outcome is not CleanupOutcome.DONE or left == [], f"{outcome}; left for ever: {left}"


def test_p2b_a_store_whose_claim_was_taken_over_does_not_count_as_gone(store: Store) -> None:
    """A store counts as gone only while its claim is the one that the cleanup saw.

    The fault (cleanup.pml -DFIX_CLAIM): the cleanup finds nothing at the provider, another worker takes the dead claim
    over and makes the store, and the cleanup's `gone` went through: should that worker die, nobody looks for its store.
    """
    chat_id, now = a_chat(), a_call().now
    attachment = announced(a_call(), chats.get(a_call(), chat_id), RULES, "application/pdf", "a.pdf")
    assert attachment_steps.take(attachment, "w1", now=now, until=now + timedelta(seconds=300))
    claim = VectorStore(a_caller().tenant_id, chat_id, "openai", claimed_by="w1", claimed_at=now, claimed_until=now)
    assert vector_stores.claim(claim, attachment, "w1", token=new_id(now))  # and w1 dies
    chats.delete(a_call(), chat_id)
    seen = vector_stores.read(a_caller().tenant_id, chat_id, "openai")
    assert seen is not None  # the cleanup asks the provider now, which has nothing
    assert vector_stores.take_over(seen, "w2", a_call().now + timedelta(seconds=60))  # a claim that is alive
    assert not vector_stores.mark_gone(seen, a_call().now), "a store that is being made counts as gone"


# --- P3: totals.pml ------------------------------------------------------------------------------------------------


def usage_event(**said: Any) -> UsageEvent:
    call = a_call()
    values: dict[str, Any] = {
        "tenant_id": call.caller.tenant_id,
        "user_id": call.caller.user_id,
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


def system_event() -> UsageEvent:
    return usage_event(
        user_id=None,
        turn_id=None,
        requester_type="system",
        billing_outcome="system_task",
        settlement_method="none",
        system_task_type="thread_summary_update",
        usage={"input_tokens": 1000, "output_tokens": 200},
        committed_credits_micro=0,
        actual_credits_micro=0,
    )


def test_p3_repairing_totals_loses_no_booking(store: Store) -> None:
    """A repair is conditioned on everything that it overwrites (P3: a summary's booking leaves the turns' count)."""
    tenant, day = a_caller().tenant_id, NOW.date().isoformat()
    usage_ledger.book(usage_event(), new_id(NOW), retention_days=400)
    raw_table(store).update_item(  # a total that is wrong, which is what --repair is for
        Key=keys.usage(tenant, day)._asdict(),
        UpdateExpression="ADD #m :one",
        ExpressionAttributeNames={"#m": "micro"},
        ExpressionAttributeValues={":one": 1},
    )
    found = reconcile_usage.prove(NOW - timedelta(days=1)).mismatches
    assert [one.where for one in found if one.total] == [f"total of {day}"]
    usage_ledger.book(system_event(), new_id(NOW), retention_days=400)  # between look and repair
    reconcile_usage.repair(found, retention_days=400)
    after = {one.user_id: one.used.input_tokens for one in usage_ledger.totals(tenant, day, day)}
    assert after[None] == 1010, f"the repair lost a booking of 1000 tokens: the total says {after[None]}"


# --- P4: time to live ----------------------------------------------------------------------------------------------


def booked(store: Store) -> int:
    """Hands the usage events of the outbox to the ledger, as relay and consumer do."""
    count = 0
    for item in Tables.of(store).outbox:
        if item["queue"] == "usage":
            count += usage_ledger.book(
                UsageEvent.model_validate(json.loads(item["payload"])), item["sk"], retention_days=32
            )
    return count


def expired(store: Store, now: Any) -> None:
    """What DynamoDB's time to live removes by `now`, as it may at any time after."""
    for item in Tables.of(store).conversations:
        if "expires_at" in item and item["expires_at"] < int(now.timestamp()):
            raw_table(store).delete_item(Key={"pk": item["pk"], "sk": item["sk"]})


def test_p4a_reconcile_is_quiet_once_quota_and_ledger_have_expired(store: Store) -> None:
    """What is compared has lived equally long: turns are kept for ever, quota items and ledger entries expire (P4a)."""
    running = a_running()
    finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5)), RULES.settings)
    booked(store)
    assert (reconcile().differences, reconcile_usage.prove(a_call().now + timedelta(minutes=15)).mismatches) == ([], [])
    later = NOW + timedelta(days=500)
    expired(store, later)
    differences, mismatches = reconcile().differences, reconcile_usage.prove(later).mismatches
    assert (differences, mismatches) == ([], []), f"{len(differences)} + {len(mismatches)} false alarms, every day"


def test_p4b_repair_does_not_shrink_a_day_whose_entries_expire_one_by_one(store: Store) -> None:
    """A day of which something may have expired is left as it is: its entries expire one by one (P4b)."""
    tenant, day = a_caller().tenant_id, NOW.date().isoformat()
    morning, evening = NOW.replace(hour=1), NOW.replace(hour=23)
    usage_ledger.book(usage_event(timestamp=morning), new_id(morning), retention_days=32)
    usage_ledger.book(usage_event(timestamp=evening), new_id(evening), retention_days=32)
    noon = NOW.replace(hour=12) + timedelta(days=32)
    expired(store, noon)
    found = reconcile_usage.prove(noon).mismatches
    reconcile_usage.repair(found, retention_days=32)
    totals = {one.user_id: one.used.turns for one in usage_ledger.totals(tenant, day, day)}
    assert set(totals.values()) == {2}, f"two turns were billed on that day; the repaired totals say {totals}"


# --- P5: reconcile.pml ---------------------------------------------------------------------------------------------


def corrupted(store: Store, amount: int) -> None:
    caller = a_caller()
    raw_table(store).update_item(
        Key=keys.quota(caller.tenant_id, caller.user_id, f"{NOW:%Y-%m}-01")._asdict(),
        UpdateExpression="ADD #name :value",
        ExpressionAttributeNames={"#name": "total"},
        ExpressionAttributeValues={":value": amount},
    )


def test_p5a_a_lagging_index_does_not_make_repair_corrupt_an_account(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account of which fewer turns are found than began in it is not repaired, whatever the index says (P5a)."""
    a_running()
    original_items, original_ids = scan.items, stored_chats.ids_of
    new: list[RunningTurn] = []

    def reading() -> Any:
        # A scan in which the partition of the new chat was passed before it was there, and the quota item came after.
        before = list(original_items())
        new.append(a_running())  # another chat, another turn: running, its credits reserved
        now = {(one["pk"]["S"], one["sk"]["S"]): one for one in original_items()}
        for one in before:
            where = one["pk"]["S"], one["sk"]["S"]
            yield now[where] if one["sk"]["S"].startswith("QUOTA#") else one

    def lagging(tenant_id: Any, user_id: Any) -> Any:
        return (one for one in original_ids(tenant_id, user_id) if one != new[0].turn.chat_id)

    monkeypatch.setattr(scan, "items", reading)
    monkeypatch.setattr(stored_chats, "ids_of", lagging)
    found = reconcile().differences
    repair(found)
    monkeypatch.setattr(scan, "items", original_items)
    monkeypatch.setattr(stored_chats, "ids_of", original_ids)
    finalize(a_call(), new[0].turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5)), RULES.settings)
    assert violations(Tables.of(store)) == []


def test_p5b_turns_that_expire_between_the_two_looks_are_not_taken_from_the_account(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look reads the ledger after the turns: what expired before it was looked at has an entry still (P5b)."""
    running = a_running()
    turn = running.turn
    finalize(a_call(), turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5)), RULES.settings)
    booked(store)
    other = a_running()
    chats.delete(a_call(), turn.chat_id)
    when = a_call()
    chat_purge.expire(cleanup_event(when, turn.chat_id), RULES.settings, when.now, new_id)
    original = scan.items

    def reading() -> Any:
        before = list(original())
        # The account moves while the table is read, so that it is looked at by itself.
        finalize(a_call(), other.turn, Ending(TurnState.COMPLETED, text="x", usage=Usage(1, 1)), RULES.settings)
        now = {(one["pk"]["S"], one["sk"]["S"]): one for one in original()}
        for one in before:
            yield now[one["pk"]["S"], one["sk"]["S"]] if one["sk"]["S"].startswith("QUOTA#") else one
        for item in Tables.of(store).conversations:  # and DynamoDB removes what has expired
            if item["pk"].endswith(f"#C#{turn.chat_id}"):
                raw_table(store).delete_item(Key={"pk": item["pk"], "sk": item["sk"]})

    before = next(one for one in Tables.of(store).conversations if one["sk"].startswith("QUOTA#"))
    monkeypatch.setattr(scan, "items", reading)
    found = reconcile().differences
    monkeypatch.setattr(scan, "items", original)
    repair(found)
    after = next(one for one in Tables.of(store).conversations if one["sk"].startswith("QUOTA#"))
    spent = stored(other.turn).committed_credits_micro
    assert after["total"] == (turn_cost := 25) + (spent or 0), (
        f"the account said {before['total']}, and says {after['total']} after the repair; spent: {turn_cost} + {spent}"
    )


# --- P6: teller.pml ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("second", ["shutdown", "client leaves"])
async def test_p6_a_second_cancel_does_not_keep_a_turn_from_its_end(second: str) -> None:
    """A turn that was asked to stop ends so, whoever wants it to stop while the provider's stream is being closed.

    The fault: asked to stop, the teller closes the provider's stream; who cancelled it then made it forget the end."""
    closing = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        try:
            yield TextDelta("partial")
            await asyncio.Event().wait()
        finally:
            closing.set()
            await asyncio.sleep(0.3)  # the goodbye of a TLS connection, say

    rules = some_rules(on_disconnect="cancel" if second == "client leaves" else "continue")
    running = a_running()
    channel = begun(Scripted(script), rules, running)
    told: list[Any] = []

    async def read() -> None:
        told.extend([one async for one in each(channel.read(ping_seconds=60))])

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    await asyncio.to_thread(cancel, a_call(), running.turn.chat_id, running.turn.request_id, rules.settings)
    await closing.wait()
    if second == "shutdown":
        await generate.stop_all(5)
    else:
        reading.cancel()  # the user has pressed stop, and the browser closes the stream
        with suppress(asyncio.CancelledError):
            await reading
    for _ in range(40):
        if stored(running.turn).state is not TurnState.RUNNING:
            break
        await asyncio.sleep(0.05)
    reading.cancel()
    assert stored(running.turn).state is TurnState.CANCELLED, "2 s later: nobody ends it but the watchdog"


@pytest.mark.usefixtures("store")
async def test_p6b_a_cancel_is_seen_while_the_store_of_the_stream_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel is acted on within two seconds, however long the stream's parts take to be stored.

    The fault: one task looked and stored side by side and waited for both: who was slow to store was slow to stop."""

    def slow(*_: Any, **__: Any) -> None:
        greenlets.sleep(4)  # throttled: `put_one` is repeated for up to eight seconds

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("partial")
        await asyncio.Event().wait()

    monkeypatch.setattr(stream_record, "put_one", slow)
    rules = some_rules()
    running = a_running()
    channel = begun(Scripted(script), rules, running)
    reading = asyncio.create_task(anext(each(channel.read(ping_seconds=60))))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(cancel, a_call(), running.turn.chat_id, running.turn.request_id, rules.settings)
    asked = time.monotonic()
    while stored(running.turn).state is TurnState.RUNNING and time.monotonic() - asked < 10:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    took = time.monotonic() - asked
    reading.cancel()
    assert took < 2, f"it took {took:.1f} s"


# --- P7: unknown outcomes ------------------------------------------------------------------------------------------


async def test_p7a_an_end_whose_answer_was_lost_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end is one transaction, however often it is asked for: its own win is never taken for another finalizer's."""

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("Paris")
        yield Completed(Usage(1, 1))

    monkeypatch.setattr("minichat.storage.transact.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(generate, "FINALIZE_PAUSES_SECONDS", (0.01, 0.01))
    rules = some_rules()
    running = a_running()
    with answers_lost("TransactWriteItems", 2):
        channel = begun(Scripted(script), rules, running)
        events = [one.event async for one in each(channel.read(ping_seconds=60))]
    assert stored(running.turn).state is TurnState.COMPLETED
    assert events[-1].name == "done", f"the teller won and says nothing: {[e.name for e in events]}"


@pytest.mark.parametrize("silent", [False, True], ids=["the table can be asked", "nothing answers"])
def test_p7b_a_send_whose_answer_was_lost_does_not_block_its_chat(
    monkeypatch: pytest.MonkeyPatch, store: Store, silent: bool
) -> None:
    """A send that was stored goes on; when it cannot be known that it was, the same send goes on with it."""
    chat_id = a_chat()
    monkeypatch.setattr("minichat.storage.transact.PATIENCE_SECONDS", 0.0)
    command = SendMessage(chat_id, "hello", RequestId(str(uuid4())))
    with counted_calls() as calls, answers_lost("TransactWriteItems", 2), answers_lost("UpdateItem", 2 * silent):
        if not silent:
            again = send(a_call(), command, RULES)
        else:
            with pytest.raises(errors.ServiceUnavailable):
                send(a_call(), command, RULES)
    assert calls.count("TransactWriteItems") == 2, "the loss was not seen"
    if silent:
        # The client does what 503 tells it: the same again.
        _, stored_ = turns.read(a_caller().tenant_id, chat_id, command.request_id)
        assert stored_ is not None
        again = send(at(stored_, timedelta(seconds=20)), command, RULES)
    assert isinstance(again, RunningTurn)
    assert again.turn.request_id == command.request_id
    with pytest.raises(errors.RequestIdConflict):  # it has one teller
        send(at(again.turn, timedelta(seconds=1)), command, RULES)
    ending = Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1))
    assert finalize(at(again.turn, timedelta(seconds=2)), again.turn, ending, RULES.settings)
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize("silent", [False, True], ids=["the table can be asked", "nothing answers"])
def test_p7c_a_retry_whose_answer_was_lost_does_not_cost_the_old_answer(
    monkeypatch: pytest.MonkeyPatch, store: Store, silent: bool
) -> None:
    """A retry that was stored goes on with the new answer; when it cannot be known that it was, the same retry does."""
    running = a_running()
    finalize(
        a_call(), running.turn, Ending(TurnState.COMPLETED, text="the old answer", usage=Usage(1, 1)), RULES.settings
    )
    chat_id, target = running.turn.chat_id, running.turn.request_id
    monkeypatch.setattr("minichat.storage.transact.PATIENCE_SECONDS", 0.0)
    new = RequestId(str(uuid4()))
    with counted_calls() as calls, answers_lost("TransactWriteItems", 2), answers_lost("UpdateItem", 2 * silent):
        if not silent:
            again = mutate.retry(a_call(), chat_id, target, new, RULES)
        else:
            with pytest.raises(errors.ServiceUnavailable):
                mutate.retry(a_call(), chat_id, target, new, RULES)
    assert calls.count("TransactWriteItems") == 2, "the loss was not seen"
    if silent:
        _, stored_ = turns.read(a_caller().tenant_id, chat_id, new)
        assert stored_ is not None
        again = mutate.retry(at(stored_, timedelta(seconds=20)), chat_id, target, RequestId(str(uuid4())), RULES)
    assert again.turn.request_id == new
    ending = Ending(TurnState.COMPLETED, text="the new answer", usage=Usage(1, 1))
    assert finalize(at(again.turn, timedelta(seconds=2)), again.turn, ending, RULES.settings)
    orphans.sweep(a_call().now + TIMEOUT, new_id, RULES.settings)
    visible = [
        one["role"]
        for one in Tables.of(store).conversations
        if one["sk"].startswith("MSG#") and one["pk"].endswith(chat_id) and "deleted_at" not in one
    ]
    assert visible == ["user", "assistant"], f"the answer is gone: {visible}"
    assert violations(Tables.of(store)) == []


# --- P8: watchdog.pml ----------------------------------------------------------------------------------------------


@pytest.mark.holds("turns.one-turn-alone")
def test_p8a_one_turn_that_cannot_be_written_does_not_keep_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps one dead turn from its end, the sweep goes on to the others (P8a: a hot partition stopped it)."""
    dead = [a_running().turn for _ in range(3)]
    monkeypatch.setattr("minichat.storage.transact.PATIENCE_SECONDS", 0.0)
    original = finalize

    def hot(call: Call, turn: Turn, *args: Any) -> Any:
        if turn.request_id == dead[0].request_id:
            conflict = [{"Code": "TransactionConflict"}] + [{"Code": "None"}] * 4
            with answered_instead(
                "TransactWriteItems", [refused("TransactionCanceledException", reasons=conflict)] * 9
            ):
                return original(call, turn, *args)
        return original(call, turn, *args)

    monkeypatch.setattr(orphans, "finalize", hot)
    now = dead[-1].last_progress_at + TIMEOUT
    for _ in range(3):  # three minutes
        with suppress(errors.ServiceUnavailable):
            orphans.sweep(now, new_id, RULES.settings)
    assert [stored(turn).state for turn in dead[1:]] == [TurnState.FAILED] * 2


def test_p8b_living_turns_do_not_hide_a_dead_one(store: Store) -> None:
    """The index is read to its end, and `batch_size` counts the dead alone (P8b: it cut off living and dead alike)."""
    few = RULES.settings.model_copy(
        update={"orphan_watchdog": RULES.settings.orphan_watchdog.model_copy(update={"batch_size": 2})}
    )
    living = [a_running().turn for _ in range(24)]
    dead = a_running().turn
    now = dead.last_progress_at + TIMEOUT
    for turn in living:
        leases.progress(Call(a_caller(), now, new_id), turn, provider_called=True)
    for _ in range(5):
        orphans.sweep(now, new_id, few)
    assert stored(dead).state is TurnState.FAILED


@pytest.mark.holds("turns.one-turn-alone")
def test_p8c_a_turn_that_cannot_be_read_does_not_stop_the_watchdog(store: Store) -> None:
    """A turn of a later version, with a state that this one does not know, is told and passed over (P8c)."""
    strange, dead = a_running().turn, a_running().turn
    raw_table(store).update_item(
        Key=keys.turn(strange.tenant_id, strange.chat_id, strange.request_id)._asdict(),
        UpdateExpression="SET #s = :v",
        ExpressionAttributeNames={"#s": "state"},
        ExpressionAttributeValues={":v": "paused"},
    )
    with suppress(ValueError):
        orphans.sweep(dead.last_progress_at + TIMEOUT, new_id, RULES.settings)
    assert stored(dead).state is TurnState.FAILED


# --- P9: quota of tools --------------------------------------------------------------------------------------------


def test_p9_parallel_turns_do_not_exceed_the_daily_number_of_searches(store: Store) -> None:
    """A turn sets the searches aside that it may make, so the turns of a day never make more than it allows (P9)."""
    rules = Rules(RULES.settings.model_copy(update={"quota": Quota(web_search_daily_quota=2)}), RULES.policy)
    begun_: list[RunningTurn] = []
    with suppress(errors.QuotaExceeded):
        for _ in range(10):
            command = SendMessage(a_chat(), "search", RequestId(str(uuid4())), web_search=True)
            running = send(a_call(), command, rules)
            assert isinstance(running, RunningTurn)
            begun_.append(running)
    for running in begun_:
        finalize(
            a_call(),
            running.turn,
            Ending(TurnState.COMPLETED, text="x", usage=Usage(1, 1), tool_calls=ToolCalls(web_search=2)),
            rules.settings,
        )
    quota = next(one for one in Tables.of(store).conversations if one["sk"].startswith("QUOTA#"))
    searches = quota[f"{NOW:%d}w"]
    assert searches <= 2, f"{len(begun_)} turns at once were admitted: {searches} searches of 2 a day"


# --- P10: clocks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [5, 15, 30])
def test_p10a_a_living_turn_survives_clocks_that_differ(store: Store, skew: int) -> None:
    """Nobody ends a turn that was renewed five seconds ago, be the teller's clock 30 s behind and the watchdog's ahead.

    The fault: the patience had no room for clocks that differ by as much as itself."""
    behind, ahead = timedelta(seconds=-skew), timedelta(seconds=skew)
    turn = a_running().turn
    true_now = turn.started_at + timedelta(seconds=120)
    leases.progress(Call(a_caller(), true_now - timedelta(seconds=5) + behind, new_id), turn, provider_called=True)
    orphans.sweep(true_now + ahead, new_id, RULES.settings)
    assert stored(turn).state is TurnState.RUNNING, f"killed alive at ±{skew} s"


@pytest.mark.parametrize("skew", [2, 5, 10])
def test_p10b_a_living_turn_that_is_asked_to_stop_ends_itself(store: Store, skew: int) -> None:
    """Who asks a living turn to stop does not end it in its stead, though their clocks differ.

    The fault: the shorter patience of a cancel had room for clocks that differ by five seconds."""
    behind, ahead = timedelta(seconds=-skew), timedelta(seconds=skew)
    turn = a_running().turn
    true_now = turn.started_at + timedelta(seconds=120)
    leases.progress(Call(a_caller(), true_now - timedelta(seconds=5) + behind, new_id), turn, provider_called=True)
    cancel(Call(a_caller(), true_now + ahead, new_id), turn.chat_id, turn.request_id, RULES.settings)
    assert stored(turn).state is TurnState.RUNNING, f"its text of the last second is lost at ±{skew} s"


@pytest.mark.parametrize("ahead", [30, 3600])
def test_p10c_one_clock_that_ran_ahead_does_not_keep_a_dead_turn_alive(store: Store, ahead: int) -> None:
    """A dead turn is found after its patience, whatever time the chat's messages claim.

    The fault: a turn, and with it its sign of life, started after the chat's newest message, whoever's clock wrote
    that."""
    first = a_running()
    fast = Call(a_caller(), first.turn.started_at + timedelta(seconds=ahead), new_id)
    finalize(fast, first.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), RULES.settings)
    call = a_call()
    dead = a_running(first.turn.chat_id, call).turn  # and its process dies at once
    orphans.sweep(
        call.now + TIMEOUT + timedelta(seconds=60), new_id, RULES.settings
    )  # two minutes later, by a right clock
    assert stored(dead).state is TurnState.FAILED, f"its last sign of life is {dead.last_progress_at - call.now} ahead"


# --- P13: a message that is redriven late --------------------------------------------------------------------------


def test_p13_what_a_provider_has_of_a_chat_is_known_until_it_is_deleted(store: Store) -> None:
    """What leads to a file does not expire before the file is gone, so a cleanup that is redriven late finds it.

    The fault: the items of a deleted chat expired whether or not its files were gone.
    """
    chat = chats.create(a_call(), chats.NewChat(), RULES)
    ready(a_call(), announced(a_call(), chat, RULES, "application/pdf", "a.pdf"))
    chats.delete(a_call(), chat.chat_id)
    deleted = a_call()
    chat_purge.expire(cleanup_event(deleted, chat.chat_id), RULES.settings, deleted.now, new_id)
    # The provider was down for the message's 64 deliveries; it waits in the dead-letter queue. A month later:
    expired(store, deleted.now + timedelta(days=RULES.settings.retention.deleted_chats_days + 1))
    asked: list[object] = []
    provider: Any = Provider(lambda: asked.append(1))
    means = provider_cleanup.CleanupDeps(provider, RULES.settings.cleanup, lambda: a_call().now)
    outcome = provider_cleanup.clean_chat_resources(
        chat.tenant_id, chat.chat_id, means, ends_at=NOW + timedelta(days=365)
    )
    assert asked, f"{outcome}: the file stays at the provider for ever"


# --- P11: resume.pml -----------------------------------------------------------------------------------------------


async def test_p11a_a_zombie_writes_nothing_that_is_told(store: Store) -> None:
    """A turn that was ended without a stored event has no text, in its stream as in its message.

    The fault: its teller, frozen in its first second and ended by another, woke up and stored; nothing bounded that."""
    turn = a_running().turn
    zombie = Transcript()
    for word in ("I ", "am ", "back"):
        zombie.pending.append(Told("delta", {"type": "text", "content": word}))
    late = at(turn, TIMEOUT)
    assert orphans.ended_as_orphan(late, turn, RULES.settings)
    # What `_record` does on its next go: a look and a write, side by side.
    looked, _ = await asyncio.gather(
        asyncio.to_thread(leases.look, turn), zombie.store(turn, RULES.settings.streaming), return_exceptions=True
    )
    assert looked is None
    resumed = resume(late, turn.chat_id, turn.request_id, 0, RULES.settings)
    told = [one.event async for one in each(follow(late, resumed, RULES.settings, lambda: late.now))]
    said = [one.data["content"] for one in told if one.name == "delta"]
    assert said == [], f"the turn has no text, and its stream says {said}"


async def test_p11b_a_slow_reader_loses_nothing_when_the_parts_expire(store: Store) -> None:
    """A reader that began while the parts were kept is told all of them, though their time ends meanwhile.

    The fault: whether they are kept was asked again for every 200 events, and a no counted as: that was all."""
    turn = a_running().turn
    record = Transcript()
    for number in range(450):
        record.pending.append(Told("delta", {"type": "text", "content": f"{number} "}))
    await record.store(turn, RULES.settings.streaming)
    ending = Ending(TurnState.COMPLETED, text="".join(f"{n} " for n in range(450)), usage=Usage(10, 450))
    assert finalize(a_call(), turn, ending, RULES.settings, Teller(record.stored)) is not None
    kept = timedelta(hours=RULES.settings.streaming.parts_kept_hours)
    times = iter([at(turn, kept - timedelta(seconds=1)).now])
    after_that = at(turn, kept).now
    first = at(turn, kept - timedelta(seconds=1))
    resumed = resume(first, turn.chat_id, turn.request_id, 0, RULES.settings)

    calls = 0
    original = parts.are_kept

    def clock_goes_on(turn_: Turn, now: Any, *, kept: timedelta) -> bool:
        nonlocal calls
        calls += 1
        return original(turn_, now if calls == 1 else after_that, kept=kept)

    parts.are_kept = clock_goes_on  # type: ignore[assignment]
    try:
        told = [one async for one in each(follow(first, resumed, RULES.settings, lambda: next(times, after_that)))]
    finally:
        parts.are_kept = original
    numbers = [one.number for one in told]
    assert numbers == list(range(1, 452)), f"told {len(numbers)} of 451 events and then {told[-1].event.name}"


# --- P12: order of the list ----------------------------------------------------------------------------------------


def test_p12_a_chat_that_is_renamed_by_a_slow_clock_does_not_go_back(store: Store) -> None:
    """A chat only moves to the front of its owner's list, whoever's clock renames it."""
    call = a_call()
    chat = chats.create(call, chats.NewChat(), RULES)
    renamed = chats.rename(Call(call.caller, call.now - timedelta(seconds=30), new_id), chat.chat_id, "later")
    assert renamed.updated_at >= chat.updated_at
