"""What turns, streams and the watchdog leave in the metrics, written where their edge writes."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from functions.orphan_watchdog import handler as watchdog
from minichat.domain import errors
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.policy import LimitsByUser
from minichat.domain.settlement import Ending
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.observability import Measurement, begin, emit
from minichat.providers.chunks import Completed, Failed, ProviderChunk, TextDelta, ToolActivity
from minichat.services import chats, generate, mutate, orphans
from minichat.services.answer_metrics import measure_answer
from minichat.services.cancel import cancel
from minichat.services.finalize import finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Settings, Store
from minichat.storage import leases
from tests.integration.test_generate import Script, Scripted, a_running_turn, begun, searching_rules, some_rules, told
from tests.support.domain.builders import a_call, a_model, a_policy, new_id, some_limits
from tests.support.patience import PATIENCE
from tests.support.services.events import each
from tests.support.storage.faults import answered_instead, refused

pytestmark = pytest.mark.usefixtures("store")

BY_MODEL = (("model", "small"), ("provider", "openai"))
IDENTITIES = {"tenant_id", "user_id", "chat_id", "turn_id", "request_id", "trace_id"}

Found = Counter[tuple[str, tuple[tuple[str, str], ...]]]


def found_in(measurements: Any) -> Found:
    """How often each metric was recorded, by name and dimensions."""
    return Counter((one.name, one.dimensions) for one in measurements)


def of(found: Found, name: str) -> dict[tuple[str, ...], int]:
    """One metric: how often by the values of its dimensions."""
    return {tuple(value for _, value in by): times for (metric, by), times in found.items() if metric == name}


def written(capsys: pytest.CaptureFixture[str]) -> Found:
    """The same, of the lines that were written; none of them tells whose they are."""
    found: Found = Counter()
    for text in capsys.readouterr().out.splitlines():
        line = json.loads(text)
        if "_aws" not in line:
            continue
        assert not IDENTITIES & set(line)
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        by = tuple((name, line[name]) for name in directive["Dimensions"][-1])
        for metric in directive["Metrics"]:
            found[metric["Name"], by] += len(line[metric["Name"]])
    return found


async def left_by(script: Script, capsys: pytest.CaptureFixture[str], *, cancelled: bool = False) -> Found:
    """The metrics of one stream, as its own task wrote them."""
    rules = some_rules()
    running = await asyncio.to_thread(a_running_turn, rules)
    begin()
    reading = asyncio.create_task(told(begun(Scripted(script), rules, running)))
    if cancelled:
        chat_id, request_id = running.turn.chat_id, running.turn.request_id
        await asyncio.to_thread(cancel, a_call(), chat_id, request_id, rules.settings)
    await reading
    emit(rules.settings.metrics_namespace)
    return written(capsys)


async def test_a_completed_stream_is_measured_whole(capsys: pytest.CaptureFixture[str]) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("Hello")
        yield Completed(Usage(10, 2))

    found = await left_by(script, capsys)
    for name in ("stream_started_total", "stream_completed_total", "ttft_ms", "stream_total_ms"):
        assert found[name, BY_MODEL] == 1, name
    assert found["active_streams", ()] == 1
    assert found["finalization_latency_ms", ()] == 1
    assert of(found, "quota_commit_total") == {("daily",): 1, ("monthly",): 1}
    assert of(found, "quota_overshoot_total") == {}
    assert of(found, "stream_failed_total") == of(found, "stream_cancelled_total") == {}
    assert of(found, "time_to_abort_ms") == of(found, "tool_calls_total") == {}
    assert found["input_estimate_pct", (("model", "small"),)] == 1
    assert found["consumed_write_units", (("op", "finish_turn"),)] == 1


async def test_the_tools_of_an_answer_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        for _ in range(2):
            yield ToolActivity("web_search", "start")
            yield ToolActivity("web_search", "done")
        yield TextDelta("42")
        yield Completed(Usage(10, 2))

    rules = searching_rules(5)
    running = await asyncio.to_thread(partial(a_running_turn, rules, web_search=True))
    begin()
    await told(begun(Scripted(script), rules, running))
    emit(rules.settings.metrics_namespace)
    found = written(capsys)
    assert of(found, "tool_calls_total") == {("web_search",): 1}
    # What a tool puts into the prompt is no fault of the estimate.
    assert of(found, "input_estimate_pct") == {}


async def test_the_estimate_of_an_input_is_measured_against_what_the_provider_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    event = begin()
    rules = some_rules()
    running = await asyncio.to_thread(a_running_turn, rules)
    estimate = running.turn.reserve.tokens - running.turn.reserve.max_output_tokens
    measure_answer(running, Ending(TurnState.COMPLETED, text="hi", usage=Usage(2 * estimate, 1)), None, a_call().now)
    (pct,) = (one.value for one in event.measurements if one.name == "input_estimate_pct")
    assert pct == 50


def test_a_prompt_without_room_for_all_of_the_conversation_is_counted() -> None:
    model = a_model(context_window=9000, preference={"is_default": True})
    rules = replace(some_rules(), policy=a_policy(model))
    earlier = a_running_turn(rules, content="x" * 8000).turn
    chat_id = earlier.chat_id
    finalize(a_call(), earlier, Ending(TurnState.COMPLETED, text="y" * 8000, usage=Usage(1, 1)), rules.settings)
    event = begin()
    for content in ("short", "z" * 8000):
        running = send(a_call(), SendMessage(chat_id, content, RequestId(str(uuid4()))), rules)
        assert isinstance(running, RunningTurn)
        finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="", usage=Usage(1, 1)), rules.settings)
    assert of(found_in(event.measurements), "context_truncated_total") == {("small",): 1}


async def test_a_failed_stream_tells_its_code_and_no_time_to_a_text_that_never_came(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield Failed("provider_timeout")

    found = await left_by(script, capsys)
    assert of(found, "stream_failed_total") == {("provider_timeout", "small", "openai"): 1}
    assert found["stream_total_ms", BY_MODEL] == 1
    assert of(found, "stream_completed_total") == of(found, "ttft_ms") == {}


async def test_a_code_that_nobody_knows_makes_no_metric_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield Failed(str(uuid4()))  # type: ignore[arg-type]  # what an adapter of tomorrow may say

    found = await left_by(script, capsys)
    assert of(found, "stream_failed_total") == {("internal_error", "small", "openai"): 1}


async def test_a_cancelled_stream_is_neither_failed_nor_completed(capsys: pytest.CaptureFixture[str]) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("partial")
        await asyncio.Event().wait()

    found = await left_by(script, capsys, cancelled=True)
    assert found["stream_cancelled_total", BY_MODEL] == found["time_to_abort_ms", BY_MODEL] == 1
    assert of(found, "turn_mutation_total") == {("cancel", "ok"): 1}
    assert of(found, "stream_completed_total") == of(found, "stream_failed_total") == {}


async def test_usage_beyond_the_reserve_is_an_overshoot(capsys: pytest.CaptureFixture[str]) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield Completed(Usage(10**6, 10**6))

    assert of(await left_by(script, capsys), "quota_overshoot_total") == {("daily",): 1, ("monthly",): 1}


async def test_a_stream_whose_client_left_is_measured_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    gone = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("x")
        await gone.wait()
        yield Completed(Usage(1, 1))

    rules = some_rules()
    running = a_running_turn(rules)
    begin()
    async with aclosing(each(begun(Scripted(script), rules, running).read(ping_seconds=60))) as events:
        async for numbered in events:
            if numbered.event.name == "delta":
                break
    emit(rules.settings.metrics_namespace)  # the edge of the request ends here
    assert of(written(capsys), "stream_completed_total") == {}
    gone.set()
    await asyncio.wait(generate._answers, timeout=PATIENCE)
    assert of(written(capsys), "stream_completed_total") == {("small", "openai"): 1}


async def test_a_teller_that_another_finalizer_overtook_has_lost(capsys: pytest.CaptureFixture[str]) -> None:
    release = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        await release.wait()
        yield Completed(Usage(1, 1))

    rules = some_rules(progress_interval_seconds=5)
    running = a_running_turn(rules)
    await asyncio.to_thread(
        finalize, a_call(), running.turn, Ending(TurnState.FAILED, "orphan_timeout"), rules.settings
    )
    begin()
    reading = asyncio.create_task(told(begun(Scripted(script), rules, running)))
    release.set()
    await reading
    emit(rules.settings.metrics_namespace)
    found = written(capsys)
    assert of(found, "cas_lost_total") == {("stream",): 1}
    assert of(found, "stream_completed_total") == {}


def test_operations_on_turns_are_counted_by_result() -> None:
    rules = some_rules()
    event = begin()
    running = a_running_turn(rules)
    chat_id, request_id = running.turn.chat_id, running.turn.request_id
    with pytest.raises(errors.GenerationInProgress):
        send(a_call(), SendMessage(chat_id, "again", RequestId(str(uuid4()))), rules)
    with pytest.raises(errors.InvalidTurnState):
        mutate.retry(a_call(), chat_id, request_id, RequestId(str(uuid4())), rules)
    finalize(a_call(), running.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), rules.settings)
    edited = mutate.edit(a_call(), request_id, SendMessage(chat_id, "other", RequestId(str(uuid4()))), rules)
    finalize(a_call(), edited.turn, Ending(TurnState.COMPLETED, text="hi", usage=Usage(1, 1)), rules.settings)
    with pytest.raises(errors.NotLatestTurn):
        mutate.delete(a_call(), chat_id, request_id, rules.settings)
    mutate.delete(a_call(), chat_id, edited.turn.request_id, rules.settings)
    with pytest.raises(errors.ChatNotFound):
        cancel(a_call(), ChatId(str(uuid4())), request_id, rules.settings)
    found = found_in(event.measurements)
    assert of(found, "turn_mutation_total") == {
        ("send", "ok"): 1,
        ("send", "generation_in_progress"): 1,
        ("retry", "invalid_state"): 1,
        ("edit", "ok"): 1,
        ("delete", "not_latest"): 1,
        ("delete", "ok"): 1,
        ("cancel", "error"): 1,
    }
    assert of(found, "turn_mutation_latency_ms") == {
        ("send",): 2,
        ("retry",): 1,
        ("edit",): 1,
        ("delete",): 2,
        ("cancel",): 1,
    }
    assert of(found, "quota_reserve_total") == {("daily",): 2, ("monthly",): 2}
    assert of(found, "quota_preflight_total") == {("allow", "standard"): 2}


def test_what_the_quota_decides_is_counted() -> None:
    premium = a_model(id="large", tier="premium", preference={"is_default": True})
    decided: Found = Counter()
    for total, of_premium in ((10**12, 10**12), (10**12, 0), (0, 0)):
        limits = LimitsByUser(default=some_limits(total=total, premium=of_premium))
        rules = Rules(Settings(), a_policy(premium, a_model(), user_limits=limits))
        chat = chats.create(a_call(), chats.NewChat(), rules)
        event = begin()
        try:
            send(a_call(), SendMessage(chat.chat_id, "hello", RequestId(str(uuid4()))), rules)
        except errors.QuotaExceeded:
            assert total == 0
        decided += found_in(event.measurements)
    assert of(decided, "quota_preflight_total") == {
        ("allow", "premium"): 1,
        ("downgrade", "standard"): 1,
        ("reject", "none"): 1,
    }


def test_a_collision_of_transactions_is_counted_and_a_throttle_is_not() -> None:
    rules = some_rules()
    chat = chats.create(a_call(), chats.NewChat(), rules)
    event = begin()
    conflict = refused(
        "TransactionCanceledException", reasons=[{"Code": "TransactionConflict", "Message": "x"}, {"Code": "None"}]
    )
    with answered_instead("TransactWriteItems", [conflict, refused("ThrottlingException"), conflict]):
        assert isinstance(send(a_call(), SendMessage(chat.chat_id, "x", RequestId(str(uuid4()))), rules), RunningTurn)
    with answered_instead("UpdateItem", [refused("TransactionConflictException")]):
        chats.rename(a_call(), chat.chat_id, "New")
    found = found_in(event.measurements)
    assert of(found, "transaction_conflict_total") == {("start_turn",): 2, ("rename_chat",): 1}


def test_write_units_are_those_that_the_store_bills() -> None:
    event = begin()
    chats.create(a_call(), chats.NewChat(), some_rules())
    (units,) = [one for one in event.measurements if one.name == "consumed_write_units"]
    assert units == Measurement("consumed_write_units", units.value, "Count", (("op", "create_chat"),))
    assert units.value > 0


def test_the_watchdog_writes_what_it_found(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(store=store)
    dead = a_running_turn(some_rules()).turn
    timeout = timedelta(seconds=settings.orphan_watchdog.timeout_seconds)
    monkeypatch.setattr(watchdog, "current", lambda: settings)
    monkeypatch.setattr(watchdog, "now", lambda: dead.last_progress_at + timeout)
    told = {"detected": 1, "finalized": 1, "failed": 0, "expired_chats": 0, "failed_chats": 0}
    assert watchdog.handler({}, None) == told
    found = written(capsys)
    assert (found["orphan_detected_total", ()], found["orphan_finalized_total", ()]) == (1, 1)


def test_a_sign_of_life_at_the_last_moment_is_a_lost_race_of_who_thought_it_dead(store: Store) -> None:
    rules = some_rules()
    seen_dead = a_running_turn(rules).turn
    timeout = timedelta(seconds=rules.settings.orphan_watchdog.timeout_seconds)
    call = Call(a_call().caller, seen_dead.last_progress_at + timeout, new_id)
    leases.progress(call, seen_dead, provider_called=True)
    event = begin()
    assert orphans.ended_as_orphan(call, seen_dead, rules.settings)
    values = {one.name: one.value for one in event.measurements}
    assert (values["orphan_detected_total"], values["orphan_finalized_total"]) == (1, 0)
    found = found_in(event.measurements)
    assert of(found, "cas_lost_total") == {("orphan",): 1}
