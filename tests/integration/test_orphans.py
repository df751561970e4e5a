"""Dead turns: found by whoever meets them and by the watchdog, ended once, charged by what is known."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from minichat.domain import errors
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.settlement import Ending, settle
from minichat.domain.stream import Told
from minichat.domain.turn import ToolCalls, Turn, TurnState
from minichat.domain.usage import Usage
from minichat.services import chats, mutate, orphans
from minichat.services.finalize import Finder, finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.services.stream_record import Transcript
from minichat.settings import Settings, Store
from minichat.storage import leases, turn_lists, turns
from minichat.storage.items import READ_ATTEMPTS
from minichat.storage.transact import Rejected
from tests.support.domain.builders import a_call, a_model, a_policy, new_id, unhurried
from tests.support.patience import PATIENCE
from tests.support.storage.faults import answered_instead, refused
from tests.support.storage.invariants import Tables, violations

RULES = Rules(unhurried(), a_policy(a_model(preference={"is_default": True})))
TIMEOUT = timedelta(seconds=RULES.settings.orphan_watchdog.timeout_seconds)


def a_running_turn(chat_id: ChatId | None = None) -> Turn:
    chat_id = chat_id or chats.create(a_call(), chats.NewChat(), RULES).chat_id
    running = send(a_call(), SendMessage(chat_id, "hello", RequestId(str(uuid4()))), RULES)
    assert isinstance(running, RunningTurn)
    return running.turn


def later(turn: Turn, beyond: timedelta = timedelta()) -> Call:
    """A call at the very moment at which the turn counts as dead, or beyond."""
    call = a_call()
    return Call(call.caller, turn.last_progress_at + TIMEOUT + beyond, new_id)


def with_watchdog(**said: Any) -> Settings:
    """Settings with a watchdog of this kind."""
    return RULES.settings.model_copy(update={"orphan_watchdog": RULES.settings.orphan_watchdog.model_copy(update=said)})


def stored(turn: Turn) -> Turn:
    found = turns.read(turn.tenant_id, turn.chat_id, turn.request_id)[1]
    assert found is not None
    return found


@pytest.mark.holds("turns.dead", "turns.dead-costs")
def test_a_dead_turn_does_not_block_the_next_send(store: Store) -> None:
    dead = a_running_turn()
    leases.progress(a_call(), dead, provider_called=True)
    dead = stored(dead)
    command = SendMessage(dead.chat_id, "anybody there?", RequestId(str(uuid4())))
    with pytest.raises(errors.GenerationInProgress):
        send(later(dead, timedelta(microseconds=-1)), command, RULES)
    assert isinstance(send(later(dead), command, RULES), RunningTurn)
    ended = stored(dead)
    assert (ended.state, ended.error_code, ended.settlement_method) == (TurnState.FAILED, "orphan_timeout", "estimated")
    estimate = settle(Ending(TurnState.FAILED, "orphan_timeout"), dead.reserve, 110).committed_micro
    assert ended.committed_credits_micro == estimate > 0
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("turns.dead-costs")
def test_a_turn_that_never_reached_its_provider_costs_nothing(store: Store) -> None:
    dead = a_running_turn()
    assert orphans.ended_as_orphan(later(dead), dead, RULES.settings)
    assert (stored(dead).settlement_method, stored(dead).committed_credits_micro) == ("released", 0)
    assert violations(Tables.of(store)) == []


async def test_the_searches_that_a_dead_turn_told_of_are_not_given_back(store: Store) -> None:
    model = a_model(preference={"is_default": True}, general_config={"tool_support": {"web_search": True}})
    rules = Rules(unhurried(), a_policy(model))
    chat_id = chats.create(a_call(), chats.NewChat(), rules).chat_id
    running = send(a_call(), SendMessage(chat_id, "x", RequestId(str(uuid4())), web_search=True), rules)
    assert isinstance(running, RunningTurn)
    dead, record = running.turn, Transcript()
    for phase in ("start", "progress", "done"):
        record.pending.append(Told("tool", {"phase": phase, "name": "web_search", "details": {}}))
    await record.store(dead, rules.settings.streaming)
    assert dead.reserve.web_search_calls == 2
    assert orphans.ended_as_orphan(later(dead), dead, rules.settings)
    assert stored(dead).tool_calls == ToolCalls(web_search=1)
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("turns.dead")
def test_reading_retrying_and_deleting_a_dead_turn_end_it_first(store: Store) -> None:
    dead = a_running_turn()
    _, seen = orphans.read_and_repair(later(dead), dead.chat_id, dead.request_id, RULES.settings)
    assert seen is not None
    assert seen.state is TurnState.FAILED
    dead = a_running_turn(dead.chat_id)
    retried = mutate.retry(later(dead), dead.chat_id, dead.request_id, RequestId(str(uuid4())), RULES)
    mutate.delete(later(retried.turn), dead.chat_id, retried.turn.request_id, RULES.settings)
    assert violations(Tables.of(store)) == []


@pytest.mark.holds("turns.zombie")
def test_a_sign_of_life_between_look_and_end_saves_a_turn(store: Store) -> None:
    seen_dead = a_running_turn()
    call = later(seen_dead)
    leases.progress(Call(call.caller, call.now, new_id), seen_dead, provider_called=True)
    assert orphans.ended_as_orphan(call, seen_dead, RULES.settings)
    assert stored(seen_dead).state is TurnState.RUNNING


@pytest.mark.holds("turns.zombie")
def test_a_zombie_changes_nothing(store: Store) -> None:
    dead = a_running_turn()
    orphans.ended_as_orphan(later(dead), dead, RULES.settings)
    before = Tables.of(store)
    assert leases.progress(a_call(), dead, provider_called=True) is None
    assert finalize(a_call(), dead, Ending(TurnState.COMPLETED, text="late", usage=Usage(9, 9)), RULES.settings) is None
    assert Tables.of(store) == before


def test_the_watchdog_ends_the_dead_and_leaves_the_living(store: Store) -> None:
    dead = [a_running_turn() for _ in range(5)]
    now = later(dead[-1]).now
    alive = a_running_turn()
    leases.progress(Call(a_call().caller, now, new_id), alive, provider_called=True)
    swept = orphans.sweep(now, new_id, RULES.settings)
    assert (swept.detected, swept.finalized) == (5, 5)
    assert {stored(turn).state for turn in dead} == {TurnState.FAILED}
    assert stored(alive).state is TurnState.RUNNING
    assert orphans.sweep(now, new_id, RULES.settings) == orphans.OrphanSweep(0, 0)


def test_a_sweep_is_bounded_and_the_next_one_goes_on(store: Store) -> None:
    dead = [a_running_turn() for _ in range(6)]
    few = with_watchdog(batch_size=2)
    now = later(dead[-1]).now
    for left in (4, 2, 0):
        assert orphans.sweep(now, new_id, few).finalized == 2
        assert sum(stored(turn).state is TurnState.RUNNING for turn in dead) == left
    assert orphans.sweep(now, new_id, few) == orphans.OrphanSweep(0, 0)


def test_a_sweep_finds_every_dead_turn_behind_pages_of_living_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_lists, "PAGE", 3)
    turns_ = [a_running_turn() for _ in range(40)]
    now = later(turns_[-1]).now
    dead = turns_[::5]
    for turn in turns_:
        if turn not in dead:
            leases.progress(Call(a_call().caller, now, new_id), turn, provider_called=True)
    assert orphans.sweep(now, new_id, with_watchdog(batch_size=len(dead))) == orphans.OrphanSweep(len(dead), len(dead))
    assert {stored(turn).state for turn in dead} == {TurnState.FAILED}
    assert sum(stored(turn).state is TurnState.RUNNING for turn in turns_) == 32


@pytest.mark.parametrize("problem", [errors.ServiceUnavailable(), Rejected("ValidationException"), KeyError("a bug")])
def test_what_becomes_of_one_turn_is_that_turns_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    bad, *good = [a_running_turn() for _ in range(4)]
    original = finalize

    def failing(call: Call, turn: Turn, *rest: Any) -> Any:
        if turn.turn_id == bad.turn_id:
            raise problem
        return original(call, turn, *rest)

    monkeypatch.setattr(orphans, "finalize", failing)
    assert orphans.sweep(later(good[-1]).now, new_id, RULES.settings) == orphans.OrphanSweep(4, 3, 1)
    assert {stored(turn).state for turn in good} == {TurnState.FAILED}
    assert stored(bad).state is TurnState.RUNNING


def test_turns_that_cannot_be_ended_do_not_take_the_time_of_the_others_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, good = [a_running_turn() for _ in range(6)], a_running_turn()
    now = later(good).now
    original = finalize

    def failing(call: Call, turn: Turn, *rest: Any) -> Any:
        if turn.turn_id == good.turn_id:
            return original(call, turn, *rest)
        raise errors.ServiceUnavailable

    monkeypatch.setattr(orphans, "finalize", failing)
    # One turn a run, as when each stuck one takes all of the time: in whichever order, the good one's turn comes.
    one = with_watchdog(batch_size=1)
    runs = 0
    while stored(good).state is TurnState.RUNNING:
        assert (runs := runs + 1) < 300
        orphans.sweep(now, new_id, one)
    assert {stored(turn).state for turn in stuck} == {TurnState.RUNNING}


def test_a_sweep_stops_in_time(store: Store) -> None:
    dead = [a_running_turn() for _ in range(3)]
    now = later(dead[-1]).now
    assert orphans.sweep(now, new_id, RULES.settings, seconds=0).finalized == 0
    assert orphans.sweep(now, new_id, RULES.settings).finalized == 3


def test_a_shard_that_cannot_be_read_does_not_hide_the_others(store: Store) -> None:
    dead = [a_running_turn() for _ in range(24)]
    now = later(dead[-1]).now
    with answered_instead("Query", [refused("ValidationException")] * READ_ATTEMPTS):
        swept = orphans.sweep(now, new_id, RULES.settings)
    assert swept.failed == 1
    assert 0 < swept.finalized < 24
    assert orphans.sweep(now, new_id, RULES.settings).finalized == 24 - swept.finalized


def test_a_write_of_a_sweep_that_collides_is_not_repeated_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = a_running_turn()
    monkeypatch.setattr(orphans, "TURN_SECONDS", 0)
    collisions = [refused("TransactionCanceledException", reasons=[{"Code": "TransactionConflict"}] * 5)] * 100
    with answered_instead("TransactWriteItems", collisions):
        assert orphans.sweep(later(dead).now, new_id, RULES.settings) == orphans.OrphanSweep(1, 0, 1)
    assert len(collisions) > 90
    assert orphans.sweep(later(dead).now, new_id, RULES.settings) == orphans.OrphanSweep(1, 1)


@pytest.mark.holds("turns.watchdog")
def test_of_eight_watchdogs_and_a_late_finalizer_one_wins(store: Store) -> None:
    for _ in range(20):
        dead = a_running_turn()
        leases.progress(a_call(), dead, provider_called=True)
        call = later(stored(dead))
        start = threading.Barrier(9)

        def watchdog(_: int, start: threading.Barrier = start, dead: Turn = dead, call: Call = call) -> object:
            start.wait(PATIENCE)
            return finalize(
                call,
                dead,
                Ending(TurnState.FAILED, "orphan_timeout"),
                RULES.settings,
                Finder(stale_since=call.now - TIMEOUT),
            )

        def late(start: threading.Barrier = start, dead: Turn = dead) -> object:
            start.wait(PATIENCE)
            return finalize(a_call(), dead, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), RULES.settings)

        with ThreadPoolExecutor(9) as pool:
            late_end = pool.submit(late)
            ends = [*pool.map(watchdog, range(8)), late_end.result()]
        assert sum(end is not None for end in ends) == 1
    # One terminal transition, one settlement, one usage event per turn: the invariants count them.
    assert violations(Tables.of(store)) == []
