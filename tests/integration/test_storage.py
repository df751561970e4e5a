"""The storage layer on an engine that is atomic under threads: conditions, faults, and the budget of round trips."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest

from minichat.domain import errors
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.http import listing
from minichat.http.paging import CursorCodec
from minichat.services import chats, mutate
from minichat.services.finalize import finalize
from minichat.services.new_turn import Replay, RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Store
from minichat.storage import starting_point, transact, turns
from tests.support.domain.builders import NOW, a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.storage.faults import (
    Answer,
    answered_instead,
    answers_lost,
    counted_calls,
    hook,
    refused,
    side_by_side,
)
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
LIMITS = RULES.policy.user_limits.default


def an_opening(chat_id: ChatId, request_id: RequestId) -> starting_point.Wanted:
    """What a send or a mutation of this turn starts from, but for the messages."""
    return starting_point.Wanted(chat_id, request_id, LIMITS, 0, 0)


def a_stored_chat() -> ChatId:
    return chats.create(a_call(), chats.NewChat(), RULES).chat_id


def a_send(chat_id: ChatId, content: str = "hello", request_id: str | None = None) -> RunningTurn:
    outcome = send(a_call(), SendMessage(chat_id, content, RequestId(request_id or str(uuid4()))), RULES)
    assert isinstance(outcome, RunningTurn)
    return outcome


def a_completed_turn(chat_id: ChatId, content: str = "hello") -> RunningTurn:
    running = a_send(chat_id, content)
    assert finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(10, 5)), RULES.settings)
    return running


def test_a_turn_is_read_back_as_it_was_written(store: Store) -> None:
    chat_id = a_stored_chat()
    running = a_send(chat_id)
    _, stored = turns.read(a_caller().tenant_id, chat_id, running.turn.request_id)
    assert stored == running.turn
    ending = Ending(
        TurnState.COMPLETED, text="hi", usage=Usage(10, 5, 3, 2, 1), provider_response_id="resp_1", ttft_ms=12
    )
    finalize(a_call(), running.turn, ending, RULES.settings)
    _, ended = turns.read(a_caller().tenant_id, chat_id, running.turn.request_id)
    assert ended is not None
    assert (ended.state, ended.usage, ended.answered) == (TurnState.COMPLETED, Usage(10, 5, 3, 2, 1), True)
    assert (ended.committed_credits_micro, ended.settlement_method) == (25, "actual")


def test_only_the_first_finalizer_has_an_effect(store: Store) -> None:
    running = a_send(a_stored_chat())
    first = Ending(TurnState.COMPLETED, text="first", usage=Usage(10, 5))
    assert finalize(a_call(), running.turn, first, RULES.settings)
    before = Tables.of(store)
    assert finalize(a_call(), running.turn, Ending(TurnState.FAILED, "orphan_timeout"), RULES.settings) is None
    assert finalize(a_call(), running.turn, Ending(TurnState.CANCELLED, text="late"), RULES.settings) is None
    assert Tables.of(store) == before
    assert violations(before) == []


def test_a_refused_request_changes_nothing(store: Store) -> None:
    chat_id = a_stored_chat()
    done = a_completed_turn(chat_id)
    running = a_send(chat_id)
    before = Tables.of(store)
    with pytest.raises(errors.GenerationInProgress):
        a_send(chat_id)
    with pytest.raises(errors.InvalidTurnState):
        mutate.retry(a_call(), chat_id, running.turn.request_id, RequestId(str(uuid4())), RULES)
    with pytest.raises(errors.NotLatestTurn):
        mutate.delete(a_call(), chat_id, done.turn.request_id, RULES.settings)
    with pytest.raises(errors.ChatNotFound):
        mutate.delete(a_call(a_caller(user=9)), chat_id, done.turn.request_id, RULES.settings)
    assert Tables.of(store) == before


def test_a_mutation_that_is_refused_for_size_leaves_the_old_turn_as_it_was(store: Store) -> None:
    chat_id = a_stored_chat()
    done = a_completed_turn(chat_id)
    before = Tables.of(store)
    command = SendMessage(chat_id, "x" * 400_000, RequestId(str(uuid4())))
    with pytest.raises(errors.InputTooLong):
        mutate.edit(a_call(), done.turn.request_id, command, RULES)
    assert Tables.of(store) == before


def test_a_loser_learns_what_the_winner_made_true(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read the same latest turn; the loser's transaction meets what the winner left."""
    chat_id = a_stored_chat()
    done = a_completed_turn(chat_id)
    target = done.turn.request_id
    stale = starting_point.open_for_turn(a_call(), an_opening(chat_id, target))
    mutate.retry(a_call(), chat_id, target, RequestId(str(uuid4())), RULES)
    monkeypatch.setattr(turns, "read", lambda *_: (stale.chat, stale.turn))
    monkeypatch.setattr(starting_point, "open_for_turn", lambda *_: stale)
    with pytest.raises(errors.NotLatestTurn):
        mutate.delete(a_call(), chat_id, target, RULES.settings)
    with pytest.raises(errors.NotLatestTurn):
        mutate.retry(a_call(), chat_id, target, RequestId(str(uuid4())), RULES)


def test_a_turn_that_came_and_went_since_the_read_is_noticed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same turn is the latest again, but the chat's time has moved on: the stale message would sort before it."""
    chat_id = a_stored_chat()
    done = a_completed_turn(chat_id)
    target = done.turn.request_id
    stale = starting_point.open_for_turn(a_call(), an_opening(chat_id, target))
    call = a_call()
    mutate.delete(a_call(), chat_id, a_completed_turn(chat_id, "came and went").turn.request_id, RULES.settings)
    monkeypatch.setattr(starting_point, "open_for_turn", lambda *_: stale)
    with pytest.raises(errors.GenerationInProgress):
        mutate.retry(call, chat_id, target, RequestId(str(uuid4())), RULES)
    assert violations(Tables.of(store)) == []


def test_the_same_send_is_told_so_even_when_only_the_head_refuses(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_id = a_stored_chat()
    before = starting_point.open_for_turn(a_call(), an_opening(chat_id, RequestId(str(uuid4()))))
    running = a_send(chat_id)
    monkeypatch.setattr(starting_point, "open_for_turn", lambda *_: before)
    with pytest.raises(errors.RequestIdConflict):
        send(a_call(), SendMessage(chat_id, "hello", running.turn.request_id), RULES)


def test_a_batch_of_reads_that_was_torn_apart_does_not_hide_the_same_send(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head was read after the other send's transaction, its turn before it: BatchGetItem is not one moment."""
    chat_id = a_stored_chat()
    running = a_completed_turn(chat_id)
    whole = starting_point.open_for_turn(a_call(), an_opening(chat_id, running.turn.request_id))
    monkeypatch.setattr(starting_point, "open_for_turn", lambda *_: replace(whole, turn=None))
    replayed = send(a_call(), SendMessage(chat_id, "hello", running.turn.request_id), RULES)
    assert isinstance(replayed, Replay)
    assert replayed.turn.request_id == running.turn.request_id


def test_a_batch_of_reads_that_was_torn_apart_does_not_hide_the_turn_that_is_retried(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_id = a_stored_chat()
    done = a_completed_turn(chat_id).turn
    whole = starting_point.open_for_turn(a_call(), an_opening(chat_id, done.request_id))
    monkeypatch.setattr(starting_point, "open_for_turn", lambda *_: replace(whole, turn=None))
    retried = mutate.retry(a_call(), chat_id, done.request_id, RequestId(str(uuid4())), RULES)
    assert retried.content == "hello"
    assert violations(Tables.of(store)) == []


def test_a_turn_that_a_slower_clock_began_is_the_latest_all_the_same(store: Store) -> None:
    chat_id = a_stored_chat()
    first = a_completed_turn(chat_id).turn
    slower = Call(a_caller(), first.started_at - timedelta(seconds=2), new_id)
    second = send(slower, SendMessage(chat_id, "again", RequestId(str(uuid4()))), RULES)
    assert isinstance(second, RunningTurn)
    assert finalize(slower, second.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), RULES.settings)
    assert violations(Tables.of(store)) == []
    mutate.delete(a_call(), chat_id, second.turn.request_id, RULES.settings)
    assert violations(Tables.of(store)) == []
    mutate.delete(a_call(), chat_id, first.request_id, RULES.settings)


def test_messages_keep_their_order_when_clocks_disagree(store: Store) -> None:
    chat_id = a_stored_chat()
    a_completed_turn(chat_id, "first")
    behind = Call(a_caller(), NOW - timedelta(hours=1), new_id)
    send(behind, SendMessage(chat_id, "second", RequestId(str(uuid4()))), RULES)
    page = listing.messages(a_call(), CursorCodec("secret"), chat_id, listing.Query(20, None))
    assert [message["content"] for message in page["items"]] == ["first", "hi", "second"]


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_collision_that_passes_is_retried_and_applied_once(store: Store, code: str) -> None:
    chat_id = a_stored_chat()
    collision = refused("TransactionCanceledException", reasons=[{"Code": "None"}, {"Code": code}])
    answers = [collision, collision]
    with answered_instead("TransactWriteItems", answers):
        running = a_send(chat_id)
    assert answers == []
    finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="hi"), RULES.settings)
    assert violations(Tables.of(store)) == []


def test_a_refusal_beside_a_collision_is_not_believed_yet(store: Store) -> None:
    chat_id = a_stored_chat()
    mixed = refused(
        "TransactionCanceledException",
        reasons=[{"Code": "ConditionalCheckFailed"}, {"Code": "TransactionConflict"}],
    )
    with answered_instead("TransactWriteItems", [mixed]):
        a_send(chat_id)


def test_who_keeps_colliding_is_told_at_last_that_another_has_won(store: Store) -> None:
    collision = refused("TransactionCanceledException", reasons=[{"Code": "TransactionConflict"}])

    def while_another_wins(loser: Callable[[], object], winner: Callable[[], object]) -> None:
        attempts: list[None] = []

        def collide(**_: object) -> Answer | None:
            attempts.append(None)
            if len(attempts) == 1:
                winner()  # whose own transaction is the second that comes by here
            return None if len(attempts) == 2 else collision

        with hook("before-call.dynamodb.TransactWriteItems", collide):
            loser()

    def retried(chat_id: ChatId, done: RunningTurn) -> None:
        mutate.retry(a_call(), chat_id, done.turn.request_id, RequestId(str(uuid4())), RULES)

    chat_id = a_stored_chat()
    with pytest.raises(errors.GenerationInProgress):
        while_another_wins(lambda: a_send(chat_id), lambda: a_send(chat_id))
    for lose in (retried, lambda chat, turn: mutate.delete(a_call(), chat, turn.turn.request_id, RULES.settings)):
        chat_id = a_stored_chat()
        done = a_completed_turn(chat_id)
        with pytest.raises(errors.NotLatestTurn):
            while_another_wins(partial(lose, chat_id, done), partial(retried, chat_id, done))
    assert violations(Tables.of(store)) == []


def test_a_transaction_whose_answer_was_lost_is_applied_once(store: Store) -> None:
    chat_id = a_stored_chat()
    with answers_lost("TransactWriteItems", 2):
        running = a_send(chat_id)
    with answers_lost("TransactWriteItems", 2):
        assert finalize(
            a_call(), running.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), RULES.settings
        )
    assert violations(Tables.of(store)) == []


def test_a_store_that_stays_silent_is_unavailable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_id = a_stored_chat()
    monkeypatch.setattr(transact, "PATIENCE_SECONDS", 0.1)
    silent = [refused("ThrottlingException")] * 100
    with answered_instead("TransactWriteItems", silent), pytest.raises(errors.ServiceUnavailable):
        a_send(chat_id)
    with answered_instead("UpdateItem", silent), pytest.raises(errors.ServiceUnavailable):
        chats.rename(a_call(), chat_id, "x")
    with answered_instead("BatchGetItem", silent), pytest.raises(errors.ServiceUnavailable):
        chats.get(a_call(), chat_id)


def test_what_a_batch_read_leaves_over_is_read_again(store: Store) -> None:
    chat_id = a_stored_chat()
    name = store.conversation_table
    keys = [{"pk": {"S": f"T#{a_caller().tenant_id}#C#{chat_id}"}, "sk": {"S": "CHAT"}}]
    answer, parsed = refused("none", status=200)
    parsed = {"Responses": {}, "UnprocessedKeys": {name: {"Keys": keys}}, "ResponseMetadata": {}}
    with answered_instead("BatchGetItem", [(answer, parsed)]):
        assert chats.get(a_call(), chat_id).chat_id == chat_id


def test_every_operation_keeps_to_its_round_trips(store: Store) -> None:
    """The budgets of architecture 3, counted at the client."""
    chat_id = a_stored_chat()
    first = a_completed_turn(chat_id)
    reads = {"BatchGetItem", "Query"}

    with counted_calls() as calls, side_by_side(reads, 2):
        running = a_send(chat_id)
    assert sorted(calls) == ["BatchGetItem", "Query", "TransactWriteItems"]
    assert calls[-1] == "TransactWriteItems"

    with counted_calls() as calls:
        finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="hi"), RULES.settings)
    assert calls == ["TransactWriteItems"]

    with counted_calls() as calls:
        turns.read(a_caller().tenant_id, chat_id, running.turn.request_id)
    assert calls == ["BatchGetItem"]

    with counted_calls() as calls, side_by_side(reads, 2):
        retried = mutate.retry(a_call(), chat_id, running.turn.request_id, RequestId(str(uuid4())), RULES)
    assert sorted(calls) == ["BatchGetItem", "Query", "TransactWriteItems"]
    finalize(a_call(), retried.turn, Ending(TurnState.COMPLETED, text="hi"), RULES.settings)

    command = SendMessage(chat_id, "other", RequestId(str(uuid4())))
    with counted_calls() as calls, side_by_side(reads, 2):
        edited = mutate.edit(a_call(), retried.turn.request_id, command, RULES)
    assert sorted(calls) == ["BatchGetItem", "Query", "TransactWriteItems"]
    finalize(a_call(), edited.turn, Ending(TurnState.COMPLETED, text="hi"), RULES.settings)

    with counted_calls() as calls, side_by_side(reads, 2):
        mutate.delete(a_call(), chat_id, edited.turn.request_id, RULES.settings)
    assert sorted(calls) == ["BatchGetItem", "Query", "TransactWriteItems"]

    codec = CursorCodec("secret")
    with counted_calls() as calls:
        page = listing.messages(a_call(), codec, chat_id, listing.Query(1, None))
    assert calls == ["Query"]
    assert page["items"][0]["request_id"] == first.turn.request_id

    following = listing.Query(1, page["page_info"]["next_cursor"])
    with counted_calls() as calls, side_by_side(reads, 2):
        listing.messages(a_call(), codec, chat_id, following)
    assert sorted(calls) == ["BatchGetItem", "Query"]


@pytest.mark.holds("contract.key")
def test_an_idempotency_key_can_be_used_again_after_a_day(store: Store) -> None:
    wish = chats.NewChat("One", idempotency_key="k")
    first = chats.create(a_call(), wish, RULES)
    later = Call(a_caller(), a_call().now + timedelta(days=1), new_id)
    again = chats.create(later, chats.NewChat("Two", idempotency_key="k"), RULES)
    assert again.chat_id != first.chat_id
