"""Stored streams: what they cost, how long they are kept, and what is told when they are gone."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest

from minichat import greenlets
from minichat.domain import errors, orphan
from minichat.domain.citations import Citation, Cited
from minichat.domain.identity import Call
from minichat.domain.settlement import Ending
from minichat.domain.stream import Citations, Delta, Started, Told, told
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.providers.chunks import Completed, ProviderChunk, TextDelta, ToolActivity
from minichat.services import cancel, orphans
from minichat.services.channel import Numbered
from minichat.services.finalize import Teller, finalize
from minichat.services.new_turn import RunningTurn
from minichat.services.stream_record import Transcript
from minichat.services.stream_resume import Resumed, follow, replay, resume
from minichat.settings import Store, Streaming
from minichat.storage import keys, leases, messages, parts, turns
from tests.integration.test_generate import Scripted, a_running_turn, begun, searching_rules, some_rules
from tests.support.domain.builders import a_call, new_id
from tests.support.services.events import each
from tests.support.storage.faults import answered_instead, counted_calls, hook, refused
from tests.support.storage.invariants import Tables, violations

RULES = some_rules(progress_interval_seconds=1)
FAST = some_rules()
TIMEOUT = timedelta(seconds=RULES.settings.orphan_watchdog.timeout_seconds)


def words(count: int) -> list[ProviderChunk]:
    return [TextDelta(f"word{number} ") for number in range(count)]


async def answered(
    script: list[ProviderChunk], pause: float = 0, cited: tuple[Cited, ...] = ()
) -> tuple[RunningTurn, list[Numbered]]:
    """A turn whose answer was told to its end."""

    async def chunks() -> AsyncGenerator[ProviderChunk, None]:
        for chunk in script:
            await asyncio.sleep(pause)
            yield chunk
        yield Completed(Usage(10, len(script)), None, cited)

    searching = replace(RULES, policy=searching_rules(9).policy)
    running = a_running_turn(searching, web_search=True)
    channel = begun(Scripted(chunks), searching, running)
    return running, [one async for one in each(channel.read(ping_seconds=60))]


def now_is(turn: Turn, after: timedelta) -> Call:
    call = a_call()
    return Call(call.caller, turn.started_at + after, new_id)


async def replayed(call: Call, turn: Turn, after: int = 0) -> list[tuple[int | None, Told]]:
    return await followed(
        call, await asyncio.to_thread(resume, call, turn.chat_id, turn.request_id, after, FAST.settings)
    )


async def followed(call: Call, resumed: Resumed) -> list[tuple[int | None, Told]]:
    async with asyncio.timeout(60):
        return _plain([one async for one in each(follow(call, resumed, FAST.settings, lambda: call.now))])


def _plain(events: list[Numbered]) -> list[tuple[int | None, Told]]:
    return [(one.number, one.event) for one in events]


async def test_streaming_costs_at_most_six_writes_in_five_seconds_and_a_third_more_than_the_text(store: Store) -> None:
    writes: list[float] = []

    def note(model: Any, **_: Any) -> None:
        if model.name in {"PutItem", "UpdateItem"}:
            writes.append(time.monotonic())

    with hook("before-call", note):
        running, events = await answered(words(220), pause=0.03)
    assert len(writes) >= 4, "it was stored while it was told"
    # A write a second of the text, and one in five of the sign of life; what notes them is a moment early or late.
    within = [[one for one in writes if 0 <= one - first < 4.9] for first in writes]
    assert max(map(len, within)) <= 6
    stored = [item for item in Tables.of(store).conversations if item["sk"].startswith("PART#")]
    text = sum(len(f"word{number} ") for number in range(220))
    assert sum(len(bytes(item["events"].value)) for item in stored) <= 1.3 * text
    assert await replayed(a_call(), running.turn) == _plain(events)


@pytest.mark.holds("turns.sign-of-life")
async def test_a_turn_without_text_keeps_its_lease_with_one_write_in_five_seconds(store: Store) -> None:
    async def silent() -> AsyncGenerator[ProviderChunk, None]:
        await asyncio.Event().wait()
        yield Completed(Usage())

    running = a_running_turn(FAST)
    with counted_calls() as calls:
        channel = begun(Scripted(silent), FAST, running)
        reading = asyncio.create_task(each(channel.read(ping_seconds=60)).__anext__())
        await reading
        while calls.count("BatchGetItem") < 8:  # noqa: ASYNC110  a plain list tells nobody
            await asyncio.sleep(0.05)
    assert calls.count("UpdateItem") == 1
    assert calls.count("PutItem") == 1, "the first event, and nothing after it"
    await asyncio.to_thread(cancel.cancel, a_call(), running.turn.chat_id, running.turn.request_id, FAST.settings)
    while (await asyncio.to_thread(_stored, running.turn)).state is TurnState.RUNNING:
        pass


async def test_nothing_is_lost_while_the_store_refuses_parts(store: Store) -> None:
    with answered_instead("PutItem", [refused("ThrottlingException", status=400)] * 3):
        running, events = await answered(words(60), pause=0.03)
    assert await replayed(a_call(), running.turn) == _plain(events)


@pytest.mark.holds("contract.resume-late", "contract.resume-refused")
async def test_after_its_parts_expired_an_answer_is_told_from_its_message(store: Store) -> None:
    running, events = await answered(words(5))
    late = now_is(running.turn, timedelta(hours=24))
    last = len(events)
    whole = await replayed(late, running.turn)
    assert [number for number, _ in whole] == [1, last - 1, last]
    assert whole[0] == _plain(events)[0]
    assert whole[1][1] == told(Delta("".join(f"word{number} " for number in range(5))))
    with pytest.raises(errors.InvalidRequest) as refusal:
        resume(late, running.turn.chat_id, running.turn.request_id, 3, RULES.settings)
    assert refusal.value.errors[0].code == "expired"
    over = resume(late, running.turn.chat_id, running.turn.request_id, last, RULES.settings)
    assert over.is_over
    with pytest.raises(errors.InvalidRequest):
        resume(late, running.turn.chat_id, running.turn.request_id, last + 1, RULES.settings)


A_PAGE = Cited("web", "https://example.com/a", "A title", "It says so.", (0, 5))


@pytest.mark.parametrize("script", [words(3), [*words(1), ToolActivity("web_search", "start")], []])
async def test_citations_keep_their_number_after_the_parts_expired(store: Store, script: list[ProviderChunk]) -> None:
    running, events = await answered(script, cited=(A_PAGE,))
    assert await replayed(a_call(), running.turn) == _plain(events)
    late = now_is(running.turn, timedelta(hours=24))
    whole = await replayed(late, running.turn)
    assert (whole[0], whole[-2]) == (_plain(events)[0], _plain(events)[-2])
    assert [one.name for _, one in whole] == ["stream_started", *["delta"] * bool(script), "citations", "done"]
    numbers = [number for number, _ in whole]
    assert numbers == sorted({number for number in numbers if number is not None})
    assert numbers[-1] == events[-1].number


async def test_as_much_as_may_be_cited_is_stored_and_told_again(store: Store) -> None:
    sources = tuple(
        Cited("web", f"https://example.com/{number}", chr(0x4E00 + number) * 99, chr(0x5E00 + number) * 99)
        for number in range(200)
    )
    running, events = await answered(words(2), cited=sources)
    told_first = events[-2].event
    assert told_first.name == "citations"
    assert len(told_first.data["items"]) > 40
    message = messages.read(running.turn.tenant_id, running.turn.chat_id, running.turn.assistant_message_id)
    assert message is not None
    assert told(Citations(message.citations)) == told_first
    assert message.citations[0] == Citation("web", sources[0].target, sources[0].title, sources[0].text)


async def test_a_turn_that_died_before_it_stored_anything_has_a_start_and_an_end(store: Store) -> None:
    running = a_running_turn(RULES)
    late = now_is(running.turn, TIMEOUT)
    events = await replayed(late, running.turn)
    assert [one[1].name for one in events] == ["stream_started", "error"]
    # Whatever its client was told before it died has a lower number.
    assert await replayed(late, running.turn, after=7) == events[1:]


async def test_what_a_zombie_stores_after_its_turn_was_ended_is_never_told(store: Store) -> None:
    running = a_running_turn(RULES)
    record = Transcript()
    for text in ("one ", "two "):
        record.add(Delta(text))
    await record.store(running.turn, Streaming())
    late = now_is(running.turn, TIMEOUT)
    before = await replayed(late, running.turn)
    record.add(Delta("three "))
    await record.store(running.turn, Streaming())
    assert await replayed(late, running.turn) == before
    ended = _stored(running.turn)
    assert (ended.error_code, ended.events_stored, ended.answered) == ("orphan_timeout", 2, True)
    assert violations(Tables.of(store)) == []


async def test_a_follower_is_told_nothing_that_a_zombie_stored_after_its_turn_was_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The follower has read the turn as running; it is ended, a zombie stores, and the follower looks for parts."""
    running = a_running_turn(RULES)
    record, late, original = Transcript(), now_is(running.turn, TIMEOUT), parts.after
    record.add(Delta("one "))
    await record.store(running.turn, Streaming())

    def ended_meanwhile(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(parts, "after", original)
        assert orphans.ended_as_orphan(late, running.turn, RULES.settings)
        record.add(Delta("two "))
        greenlets.wait(record.store(running.turn, Streaming()))
        return original(*args, **more)

    follower = Resumed(running.turn, 0)
    monkeypatch.setattr(parts, "after", ended_meanwhile)
    events = await followed(late, follower)
    assert [data.data.get("content") for _, data in events if data.name == "delta"] == ["one "]
    assert events[-1][1].name == "error"


CUT_SCRIPT: list[ProviderChunk] = [*words(3), ToolActivity("web_search", "start"), *words(2)]


def text_of(events: list[tuple[int | None, Told]]) -> str:
    return "".join(event.data["content"] for _, event in events if event.name == "delta")


@pytest.mark.parametrize("cited", [(), (Cited("web", "https://example.com/a", "A title", "It says so.", (0, 5)),)])
@pytest.mark.parametrize("age", [timedelta(), timedelta(hours=24)], ids=["kept", "expired"])
async def test_a_replay_that_is_cut_anywhere_and_resumed_tells_everything_once(
    store: Store, age: timedelta, cited: tuple[Cited, ...]
) -> None:
    running, events = await answered(CUT_SCRIPT, cited=cited)
    late = now_is(running.turn, age)
    again = await followed(late, replay(late, _stored(running.turn), FAST.settings))
    original = _plain(events)
    assert [number for number, _ in again][-1] == original[-1][0]
    assert text_of(again) == text_of(original)
    assert again[0] == (1, Told("stream_started", {**original[0][1].data, "is_new_turn": False}))
    assert "quota_warnings" in original[-1][1].data
    assert "quota_warnings" not in again[-1][1].data
    if not age:
        assert again[1:-1] == original[1:-1]
    for cut, (number, _) in enumerate(again, start=1):
        rest = await replayed(late, running.turn, number or 0)
        assert text_of(again[:cut]) + text_of(rest) == text_of(original)
        assert [event.name for _, event in [*again[:cut], *rest]] == [event.name for _, event in again]
        assert [one for one, _ in rest] == [one for one, _ in again[cut:]]


@pytest.mark.parametrize("age", [timedelta(), timedelta(hours=24)], ids=["kept", "expired"])
@pytest.mark.holds("contract.cancelled-text")
async def test_what_is_left_of_a_dead_turn_is_told_once_wherever_its_replay_is_cut(
    store: Store, age: timedelta
) -> None:
    running = a_running_turn(RULES)
    record = Transcript()
    for event in (Started(running.turn.request_id, running.turn.assistant_message_id, True), Delta("one "), Delta("2")):
        record.add(event)
    await record.store(running.turn, Streaming())
    late = now_is(running.turn, TIMEOUT + age)
    assert orphans.ended_as_orphan(late, running.turn, RULES.settings)
    whole = await replayed(late, running.turn)
    assert (text_of(whole), whole[-1][1].name, whole[-1][0]) == ("one 2", "error", 1_000_003)
    for cut, (number, _) in enumerate(whole, start=1):
        assert await replayed(late, running.turn, number or 0) == whole[cut:]
    if age:
        assert [number for number, _ in whole] == [1, 3, 1_000_003]
        with pytest.raises(errors.InvalidRequest):  # of somebody who was told single events then
            resume(late, running.turn.chat_id, running.turn.request_id, 2, FAST.settings)


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.holds("contract.resume-slow")
async def test_a_reader_whose_next_part_expires_gets_the_rest_or_no_last_word(store: Store, after: int) -> None:
    """Three parts of 20 words; the second disappears while the first is told."""
    running = a_running_turn(RULES)
    turn, record, words_said = running.turn, Transcript(), [f"{number} " for number in range(60)]
    record.add(Started(turn.request_id, turn.assistant_message_id, True))
    for number, word in enumerate(words_said, start=1):
        record.add(Delta(word))
        if number % 20 == 0:
            await record.store(turn, Streaming())
    ending = Ending(TurnState.COMPLETED, text="".join(words_said), usage=Usage(1, 60))
    assert finalize(a_call(), turn, ending, RULES.settings, Teller(record.stored)) is not None
    call = a_call()
    resumed = resume(call, turn.chat_id, turn.request_id, after, FAST.settings)
    raw_table(store).delete_item(Key=keys.stream_part(turn.tenant_id, turn.chat_id, turn.request_id, 41)._asdict())
    events = await followed(call, resumed)
    if after > 1:
        # What it has of the text is not known here: it is told what is there, and comes again for the rest.
        assert text_of(events) == "".join(words_said[after - 1 : 20])
        assert (events[-1][0], events[-1][1].name) == (21, "delta")
    else:
        assert text_of(events) == "".join(words_said)
        assert [(number, event.name) for number, event in events[-3:]] == [(21, "delta"), (61, "delta"), (62, "done")]


async def test_a_part_that_was_stored_twice_is_told_once(store: Store) -> None:
    running = a_running_turn(RULES)
    first, second = Transcript(), Transcript()
    for record in (first, second):
        record.add(Delta("one "))
        record.add(Delta("two "))
    second.add(Delta("three "))
    await first.store(running.turn, Streaming())
    await second.store(running.turn, Streaming())
    assert [number for number, _ in parts.after(running.turn, 0)] == [1, 2, 3]
    assert [number for number, _ in parts.after(running.turn, 1)] == [2, 3]


async def test_a_burst_of_text_is_stored_before_the_end_and_not_in_it(store: Store) -> None:
    script: list[ProviderChunk] = [TextDelta(chr(0x4E00 + n) * 900) for n in range(1000)]
    running, events = await answered(script)
    assert _stored(running.turn).state is TurnState.COMPLETED
    assert await replayed(a_call(), running.turn) == _plain(events)


@pytest.mark.holds("turns.cancelled-dead")
async def test_a_cancelled_turn_whose_process_is_dead_ends_when_somebody_looks(store: Store) -> None:
    running = a_running_turn(RULES)
    await asyncio.to_thread(leases.progress, a_call(), running.turn, provider_called=True)
    turn = _stored(running.turn)
    asked = replace(a_call(), now=turn.last_progress_at + timedelta(seconds=1))
    cancel.cancel(asked, turn.chat_id, turn.request_id, RULES.settings)
    assert _stored(turn).state is TurnState.RUNNING
    late = replace(a_call(), now=turn.last_progress_at + orphan.CANCEL_PATIENCE)
    assert cancel.cancel(late, turn.chat_id, turn.request_id, RULES.settings).state is TurnState.CANCELLED
    ended = _stored(turn)
    assert (ended.settlement_method, ended.error_code) == ("estimated", None)
    assert violations(Tables.of(store)) == []


async def test_a_follower_pings_while_nothing_happens_and_leaves_when_its_time_is_up(store: Store) -> None:
    running = a_running_turn(FAST)
    settings = FAST.settings.model_copy(
        update={
            "streaming": FAST.settings.streaming.model_copy(
                update={"ping_interval_seconds": 0.05, "follow_interval_seconds": 0.02, "deadline_seconds": 0.3}
            )
        }
    )
    call = a_call()
    events = [one async for one in each(follow(call, Resumed(running.turn, 0), settings, lambda: call.now))]
    assert events
    assert {one.number for one in events} == {None}
    finalize(a_call(), running.turn, Ending(TurnState.CANCELLED), FAST.settings)


def raw_table(store: Store) -> Any:
    endpoint, region = store.endpoint, store.region
    return boto3.resource("dynamodb", endpoint_url=endpoint, region_name=region).Table(store.conversation_table)


def _stored(turn: Turn) -> Turn:
    _, found = turns.read(turn.tenant_id, turn.chat_id, turn.request_id)
    assert found is not None
    return found
