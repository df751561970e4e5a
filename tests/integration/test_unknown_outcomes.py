"""What becomes of a write whose answer is lost, and of a turn whose process dies between its start and its provider."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain import errors
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.orphan import BEGINNING_PATIENCE
from minichat.domain.settlement import Ending
from minichat.domain.stream import Delta
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.services import chats, mutate
from minichat.services.cancel import cancel
from minichat.services.finalize import End, Teller, finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.orphans import ended_as_orphan
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.services.stream_record import Transcript
from minichat.settings import Store
from minichat.storage import leases, parts, policies, transact, turns
from minichat.storage.items import connect
from tests.support.domain.builders import a_call, a_caller, a_model, a_policy, new_id, unhurried
from tests.support.patience import PATIENCE
from tests.support.storage.faults import Answer, answered_instead, answers_lost, counted_calls, hook, refused
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
LOST = transact.LEAST_ATTEMPTS
"""Answers that a write loses for as long as its patience lasts, when that is no time at all."""


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(transact, "PATIENCE_SECONDS", 0.0)


def a_chat() -> ChatId:
    return chats.create(a_call(), chats.NewChat(), RULES).chat_id


def a_command(chat_id: ChatId, content: str = "hello") -> SendMessage:
    return SendMessage(chat_id, content, RequestId(str(uuid4())))


def begun(command: SendMessage, call: Call | None = None) -> Turn:
    """A turn that was begun by a process that died right after."""
    running = send(call or a_call(), command, RULES)
    assert isinstance(running, RunningTurn)
    return running.turn


def stored(turn: Turn) -> Turn:
    found = turns.read(turn.tenant_id, turn.chat_id, turn.request_id)[1]
    assert found is not None
    return found


def silent_since(turn: Turn, beyond: timedelta = timedelta()) -> Call:
    """A call at the moment when a turn that has not begun counts as dead, or beyond."""
    return Call(a_caller(), stored(turn).last_progress_at + BEGINNING_PATIENCE + beyond, new_id)


def ended(running: RunningTurn | Turn) -> object:
    turn = running.turn if isinstance(running, RunningTurn) else running
    return finalize(a_call(), turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), RULES.settings, Teller())


@contextmanager
def a_listener_that_never_answers() -> Iterator[tuple[str, list[bytes]]]:
    """Its address, and what it was sent: connections are accepted, and nothing comes back."""
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line:
                    # Until who asked gives up.
                    said.append(b"".join(iter(partial(line.recv, 65536), b"")))

        listening = threading.Thread(target=listen)
        listening.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", said
        listener.shutdown(socket.SHUT_RDWR)
        listening.join(10)


def test_a_transaction_that_hangs_is_sent_again_with_its_token_however_long_it_hangs(store: Store) -> None:
    with a_listener_that_never_answers() as (address, said):
        connect(store.model_copy(update={"endpoint": address, "read_timeout_seconds": 0.3}))
        with pytest.raises(errors.ServiceUnavailable):
            chats.create(a_call(), chats.NewChat(), RULES)
    connect(store)
    writes = [one for one in said if b"TransactWriteItems" in one]
    assert len(writes) == transact.LEAST_ATTEMPTS
    assert len({one.partition(b"ClientRequestToken")[2][:60] for one in writes}) == 1


def test_a_read_that_hangs_is_asked_once_more(store: Store) -> None:
    with a_listener_that_never_answers() as (address, said):
        connect(store.model_copy(update={"endpoint": address, "read_timeout_seconds": 0.3}))
        with pytest.raises(errors.ServiceUnavailable):
            chats.get(a_call(), ChatId(str(uuid4())))
    connect(store)
    assert len(said) == 2


@pytest.mark.parametrize("status", [500, 503])
def test_a_failure_of_the_store_leaves_the_outcome_open(store: Store, status: int) -> None:
    """It may have been applied: it is repeated, and then asked for."""
    chat_id = a_chat()
    failures = [refused("InternalServerError" if status == 500 else "Whatever", status=status)] * LOST
    with (
        answered_instead("TransactWriteItems", failures),
        counted_calls() as calls,
        pytest.raises(errors.ServiceUnavailable),
    ):
        chats.delete(a_call(), chat_id)
    assert calls[-1] == "GetItem"
    assert chats.get(a_call(), chat_id).chat_id == chat_id


def test_what_was_refused_for_sure_is_not_asked_for(store: Store) -> None:
    chat_id = a_chat()
    with (
        answered_instead("TransactWriteItems", [refused("ThrottlingException")] * LOST),
        counted_calls() as calls,
        pytest.raises(errors.ServiceUnavailable),
    ):
        chats.delete(a_call(), chat_id)
    assert "GetItem" not in calls


def test_what_was_stored_is_told_as_done_when_its_answer_never_comes(store: Store) -> None:
    """Each operation that a client waits for, but those that begin a turn."""
    with answers_lost("TransactWriteItems", LOST):
        chat = chats.create(a_call(), chats.NewChat(), RULES)
    with answers_lost("TransactWriteItems", LOST):
        keyed = chats.create(a_call(), chats.NewChat(idempotency_key=new_id(a_call().now)), RULES)
    turn = begun(a_command(chat.chat_id))
    with answers_lost("TransactWriteItems", LOST):
        assert cancel(a_call(), chat.chat_id, turn.request_id, RULES.settings).cancel_requested_at is not None
    with answers_lost("TransactWriteItems", LOST):
        assert ended(turn) is not None
    with answers_lost("TransactWriteItems", LOST):
        mutate.delete(a_call(), chat.chat_id, turn.request_id, RULES.settings)
    with answers_lost("TransactWriteItems", LOST):
        chats.delete(a_call(), keyed.chat_id)
    with answers_lost("TransactWriteItems", LOST):
        policies.publish(RULES.policy, at=a_call().now, by="me", token=new_id(a_call().now))
    assert violations(Tables.of(store)) == []


def retried(turn: Turn) -> RunningTurn:
    return mutate.retry(a_call(), turn.chat_id, turn.request_id, RequestId(str(uuid4())), RULES)


@contextmanager
def never_let_in(how: Answer, rival: Callable[[], object]) -> Iterator[list[None]]:
    """Transactions of the loser: none of them gets through, and the rival wins after the first; what was tried."""
    loser, tried = threading.get_ident(), list[None]()

    def answer(**_: Any) -> Answer | None:
        if threading.get_ident() != loser:
            return None
        tried.append(None)
        if len(tried) == 1:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(rival).result()
        return how

    with hook("before-call.dynamodb.TransactWriteItems", answer):
        yield tried


@pytest.mark.parametrize(("patience", "at_most"), [(PATIENCE, transact.LOOKS_AFTER), (0.0, LOST)])
@pytest.mark.parametrize(
    "how",
    [
        refused("TransactionCanceledException", reasons=[{"Code": "TransactionConflict"}]),
        refused("InternalServerError", status=500),
    ],
)
def test_who_never_gets_in_is_told_who_won_and_not_that_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch, store: Store, how: Answer, patience: float, at_most: int
) -> None:
    """Of many that collide, or whose answers are lost, each could spend its patience on what was decided long ago."""
    monkeypatch.setattr(transact, "PATIENCE_SECONDS", patience)
    chat_id = a_chat()
    turn = begun(a_command(chat_id))
    ended(turn)
    other = a_command(chat_id)
    with never_let_in(how, lambda: begun(other)) as tried, pytest.raises(errors.GenerationInProgress) as busy:
        send(a_call(), a_command(chat_id), RULES)
    assert (busy.value.request_id, len(tried)) == (other.request_id, at_most)
    ended(latest := turns.read(turn.tenant_id, chat_id, other.request_id)[1] or turn)
    with (
        never_let_in(how, lambda: mutate.delete(a_call(), chat_id, latest.request_id, RULES.settings)) as tried,
        pytest.raises(errors.NotLatestTurn),
    ):
        mutate.delete(a_call(), chat_id, latest.request_id, RULES.settings)
    assert len(tried) == at_most
    with (
        never_let_in(how, lambda: retried(turn)) as tried,
        pytest.raises(errors.NotLatestTurn),
    ):
        retried(turn)
    assert len(tried) == at_most
    assert violations(Tables.of(store)) == []


def test_who_finds_what_its_own_lost_attempt_did_has_won(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Without the answer to any repetition, either."""
    monkeypatch.setattr(transact, "PATIENCE_SECONDS", PATIENCE)
    chat_id = a_chat()
    with answers_lost("TransactWriteItems", transact.LOOKS_AFTER), counted_calls() as calls:
        turn = begun(a_command(chat_id))
    assert calls.count("TransactWriteItems") == transact.LOOKS_AFTER
    ended(turn)
    with answers_lost("TransactWriteItems", transact.LOOKS_AFTER):
        again = retried(turn)
    ended(again)
    with answers_lost("TransactWriteItems", transact.LOOKS_AFTER):
        mutate.delete(a_call(), chat_id, again.turn.request_id, RULES.settings)
    assert chats.get(a_call(), chat_id).message_count == 0
    assert violations(Tables.of(store)) == []


def test_an_end_that_was_stored_is_known_by_whoever_stores_it_again(store: Store) -> None:
    """Even the question was lost: the same end is the same transaction, and its win is its own."""
    turn = begun(a_command(a_chat()))
    end = End(a_call(), turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), RULES.settings, Teller())
    with answers_lost("TransactWriteItems", LOST), answers_lost("GetItem", 1), pytest.raises(errors.ServiceUnavailable):
        end.store()
    assert stored(turn).state is TurnState.COMPLETED
    assert end.store() is not None
    assert ended(turn) is None
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("contract.goes-on")
def test_a_turn_whose_process_died_before_it_began_is_gone_on_with_by_the_same_send(store: Store) -> None:
    chat_id = a_chat()
    ended(begun(a_command(chat_id, "earlier")))
    command = a_command(chat_id)
    dead = begun(command)
    with pytest.raises(errors.RequestIdConflict):
        send(silent_since(dead, timedelta(microseconds=-1)), command, RULES)
    before = Tables.of(store)
    again = send(silent_since(dead), command, RULES)
    assert isinstance(again, RunningTurn)
    assert (again.turn.turn_id, again.turn.reserve, again.content) == (dead.turn_id, dead.reserve, "hello")
    assert [message.content for message in again.admission.assembly.history] == ["earlier", "hi"]
    assert [item["sk"] for item in before.conversations] == [item["sk"] for item in Tables.of(store).conversations]
    assert ended(again) is not None
    assert violations(Tables.of(store)) == []


def test_the_process_that_a_turn_was_taken_from_changes_nothing(store: Store) -> None:
    command = a_command(a_chat())
    zombie = begun(command)
    again = send(silent_since(zombie), command, RULES)
    assert isinstance(again, RunningTurn)
    assert leases.progress(a_call(), zombie, provider_called=True) is None
    assert leases.look(zombie) is None
    assert ended(zombie) is None
    assert stored(zombie).state is TurnState.RUNNING
    for turn, word in ((zombie, "late"), (again.turn, "right")):
        record = Transcript()
        record.add(Delta(word))
        asyncio.run(record.store(turn, RULES.settings.streaming))
    assert [event.data["content"] for _, event in parts.after(stored(zombie), 0)] == ["right"]
    assert leases.look(again.turn) is not None
    assert ended(again) is not None


def test_of_many_same_sends_one_goes_on_with_a_turn(store: Store) -> None:
    for _ in range(5):
        command = a_command(a_chat())
        call = silent_since(begun(command))
        start = threading.Barrier(8)

        def again(_: int, command: SendMessage = command, call: Call = call, start: threading.Barrier = start) -> bool:
            start.wait(PATIENCE)
            try:
                return isinstance(send(Call(a_caller(), call.now, new_id), command, RULES), RunningTurn)
            except errors.RequestIdConflict:
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(again, range(8))) == 1
    assert violations(Tables.of(store)) == []


def test_a_turn_that_was_called_told_cancelled_or_sent_otherwise_is_not_gone_on_with(store: Store) -> None:
    called, told, cancelled, other = (a_command(a_chat()) for _ in range(4))
    turn = begun(called)
    leases.progress(a_call(), turn, provider_called=True)
    with pytest.raises(errors.RequestIdConflict) as conflict:
        send(silent_since(turn), called, RULES)
    assert conflict.value.turn_state == "running"

    record = Transcript()
    record.add(Delta("part of it"))
    for put in parts.puts(begun(told), 1, record.pending, kept=timedelta(days=1)):
        transact.put_one(put.item)
    cancel(a_call(), cancelled.chat_id, begun(cancelled).request_id, RULES.settings)
    begun(other)
    for command, state in (
        (told, "error"),
        (cancelled, "cancelled"),
        (SendMessage(other.chat_id, "else", other.request_id), "error"),
    ):
        _, turn_ = turns.read(a_caller().tenant_id, command.chat_id, command.request_id)
        assert turn_ is not None
        with pytest.raises(errors.RequestIdConflict) as conflict:
            send(silent_since(turn_), command, RULES)
        assert conflict.value.turn_state == state


@pytest.mark.holds("turns.not-begun")
def test_a_turn_that_has_not_begun_blocks_its_chat_for_no_longer_than_15_seconds(store: Store) -> None:
    dead = begun(a_command(a_chat()))
    call = silent_since(dead)
    assert isinstance(send(call, a_command(dead.chat_id, "something else"), RULES), RunningTurn)
    assert (stored(dead).error_code, stored(dead).settlement_method) == ("orphan_timeout", "released")
    assert violations(Tables.of(store)) == []


def test_a_policy_that_has_no_room_for_a_turn_any_more_lets_its_chat_go(store: Store) -> None:
    command = a_command(a_chat())
    dead = begun(command)
    dearer = a_model(preference={"is_default": True}, input_tokens_credit_multiplier_micro=2_000_000)
    with pytest.raises(errors.RequestIdConflict) as conflict:
        send(silent_since(dead), command, Rules(RULES.settings, a_policy(dearer)))
    assert conflict.value.turn_state == "error"
    assert isinstance(send(a_call(), a_command(dead.chat_id), RULES), RunningTurn)


def test_the_same_edit_goes_on_and_another_does_not(store: Store) -> None:
    chat_id = a_chat()
    old = begun(a_command(chat_id))
    ended(old)
    new = mutate.edit(a_call(), old.request_id, a_command(chat_id, "better"), RULES).turn
    for content in ("worse", "hello"):
        with pytest.raises(errors.NotLatestTurn):
            mutate.edit(silent_since(new), old.request_id, a_command(chat_id, content), RULES)
    with pytest.raises(errors.NotLatestTurn):
        mutate.retry(silent_since(new), chat_id, old.request_id, RequestId(str(uuid4())), RULES)
    again = mutate.edit(silent_since(new), old.request_id, a_command(chat_id, "better"), RULES)
    assert (again.turn.request_id, again.content) == (new.request_id, "better")
    assert ended(again) is not None
    assert not ended_as_orphan(silent_since(new), stored(new), RULES.settings)
    assert violations(Tables.of(store)) == []


def test_a_start_that_took_long_is_renewed_before_its_provider_is_called(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LATE_SECONDS", 0)
    command = a_command(a_chat())
    with counted_calls() as calls:
        turn = begun(command)
    assert calls[-2:] == ["TransactWriteItems", "UpdateItem"]
    assert stored(turn).last_progress_at > turn.started_at
