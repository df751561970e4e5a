"""What comes at a bad moment: an answer whose end is known is stored, whoever wants it to stop, how often and when."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from minichat.domain import errors
from minichat.domain.citations import Cited
from minichat.domain.identity import Call
from minichat.domain.stream import Told
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from minichat.http.sse import EventStream, encoded
from minichat.providers.chunks import Completed, ProviderChunk, TextDelta
from minichat.services import generate, lease, orphans, stream_record
from minichat.services.cancel import cancel
from minichat.services.channel import Channel, Numbered
from minichat.services.finalize import End
from minichat.services.new_turn import RunningTurn
from minichat.services.policy_in_force import Rules
from minichat.settings import OrphanWatchdog
from minichat.storage import leases
from tests.integration.test_generate import Scripted, a_running_turn, begun, some_rules, stored, told
from tests.support import blocked
from tests.support.domain.builders import a_call, new_id
from tests.support.services.events import each

pytestmark = pytest.mark.usefixtures("store")

A_PAGE = Cited("web", "https://example.com/a", "A title", "It says so.", (0, 5))

store_end = End.store


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Returns once the condition holds, which is looked at in a thread: it may ask the store."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110  the store tells nobody
            await asyncio.sleep(0.02)


def is_over(running: RunningTurn) -> Callable[[], bool]:
    return lambda: stored(running).state is not TurnState.RUNNING


class Closing(Scripted):
    """A provider whose stream says when it is being closed, and then takes its time, or for ever."""

    def __init__(self, *chunks: ProviderChunk, seconds: float | None) -> None:
        self._chunks, self._seconds = chunks, seconds
        self.closing = asyncio.Event()

    async def stream(self, *_: object) -> AsyncGenerator[ProviderChunk, None]:
        try:
            for chunk in self._chunks:
                yield chunk
            await asyncio.Event().wait()
        finally:
            self.closing.set()
            await (asyncio.Event().wait() if self._seconds is None else asyncio.sleep(self._seconds))


async def leaves(channel: Channel, *_: object) -> None:
    channel.leave()


async def stops(*_: object) -> None:
    await generate.stop_all(0.01)


async def asks(_: Channel, running: RunningTurn, rules: Rules) -> None:
    await asyncio.to_thread(cancel, a_call(), running.turn.chat_id, running.turn.request_id, rules.settings)


@pytest.mark.parametrize("seconds", [0.2, None], ids=["slowly", "never"])
@pytest.mark.parametrize("stop", [leaves, stops, asks], ids=["the client leaves", "the process stops", "a cancel"])
async def test_an_answer_that_is_whole_ends_so_while_its_stream_closes(stop: Any, seconds: float | None) -> None:
    rules = some_rules(on_disconnect="cancel")
    running = a_running_turn(rules)
    provider = Closing(TextDelta("whole"), Completed(Usage(3, 4), "resp_1", (A_PAGE,)), seconds=seconds)
    channel = begun(provider, rules, running)
    await provider.closing.wait()
    for _ in range(3):
        with suppress(errors.ChatError):
            await stop(channel, running, rules)
    await until(is_over(running))
    turn = stored(running)
    assert (turn.state, turn.usage, turn.settlement_method) == (TurnState.COMPLETED, Usage(3, 4), "actual")


@pytest.mark.parametrize("seconds", [0.2, None], ids=["slowly", "never"])
async def test_a_turn_ends_as_asked_however_often_it_is_stopped_while_its_stream_closes(seconds: float | None) -> None:
    rules = some_rules(on_disconnect="cancel")
    running = a_running_turn(rules)
    provider = Closing(TextDelta("partial"), seconds=seconds)
    channel = begun(provider, rules, running)
    reading = asyncio.create_task(told(channel))
    await until(lambda: not channel.waiting and stored(running).provider_request_started_at is not None)
    await asks(channel, running, rules)
    await provider.closing.wait()
    for stop in (leaves, stops, leaves, stops):
        await stop(channel, running, rules)
    await until(is_over(running))
    reading.cancel()
    turn = stored(running)
    assert (turn.state, turn.answered) == (TurnState.CANCELLED, True)


async def test_an_answer_is_told_as_done_without_waiting_for_its_connection() -> None:
    rules = some_rules()
    running = a_running_turn(rules)
    provider = Closing(TextDelta("whole"), Completed(Usage(3, 4), None, (A_PAGE,)), seconds=None)
    events = await told(begun(provider, rules, running))
    assert [event.name for event in events] == ["stream_started", "delta", "citations", "done"]


async def test_a_stream_that_fails_while_it_closes_has_said_its_last_word() -> None:
    class Failing(Scripted):
        async def stream(self, *_: object) -> AsyncGenerator[ProviderChunk, None]:
            try:
                yield TextDelta("whole")
                yield Completed(Usage(3, 4))
            finally:
                raise ConnectionError("the goodbye was not answered")

    rules = some_rules()
    running = a_running_turn(rules)

    async def nothing() -> AsyncGenerator[ProviderChunk, None]:
        return
        yield

    assert (await told(begun(Failing(nothing), rules, running)))[-1].name == "done"


@pytest.mark.holds("turns.nothing-before")
async def test_a_turn_that_is_stopped_before_its_teller_takes_a_step_has_an_end() -> None:
    rules = some_rules()
    running = a_running_turn(rules)
    channel = begun(Closing(TextDelta("never"), seconds=0), rules, running)
    await generate.stop_all(20)
    assert stored(running).settlement_method == "released", "its provider was never called"
    assert [event.name for event in await told(channel)] == ["stream_started", "error"]


async def test_the_end_of_a_turn_is_waited_for_however_often_its_process_is_told_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        ending.set()
        assert blocked.until(go_on)
        return store_end(*args)

    monkeypatch.setattr(End, "store", slow)
    rules = some_rules(on_disconnect="cancel")
    running = a_running_turn(rules)
    channel = begun(Closing(TextDelta("whole"), Completed(Usage(1, 1)), seconds=0), rules, running)
    reading = asyncio.create_task(told(channel))
    await asyncio.to_thread(ending.wait, 20)
    for _ in range(3):
        await generate.stop_all(0.01)
        channel.leave()
    go_on.set()
    await generate.stop_all(20)
    assert stored(running).state is TurnState.COMPLETED
    reading.cancel()


@pytest.mark.parametrize(("module", "name"), [(stream_record, "put_one"), (leases, "progress")], ids=["parts", "lease"])
async def test_a_cancel_is_acted_on_while_other_writes_hang(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    hangs, go_on = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        hangs.set()
        assert blocked.until(go_on)
        raise errors.ServiceUnavailable

    monkeypatch.setattr(module, name, hang)
    rules = some_rules()
    running = a_running_turn(rules)
    reading = asyncio.create_task(told(begun(Closing(TextDelta("partial"), seconds=0), rules, running)))
    await asyncio.to_thread(hangs.wait, 20)
    await asks(Channel(16), running, rules)
    events = await reading
    go_on.set()
    assert [event.name for event in events] == ["stream_started", "delta", "error"]
    assert stored(running).state is TurnState.CANCELLED


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.holds("turns.sign-of-life")
async def test_a_turn_lives_while_its_end_is_being_stored(
    monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
) -> None:
    """Storing an end may take a minute where the store answers badly: longer than a turn may be silent."""
    ending, go_on, instants = threading.Event(), threading.Event(), [a_call().now]

    def slow(*args: Any) -> Any:
        ending.set()
        assert blocked.until(go_on)
        return store_end(*args)

    monkeypatch.setattr(End, "store", slow)
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.05)
    rules = some_rules()
    rules = Rules(
        rules.settings.model_copy(update={"orphan_watchdog": OrphanWatchdog(timeout_seconds=30)}), rules.policy
    )
    running = a_running_turn(rules)
    provider = Closing(TextDelta("whole"), *([] if is_cancelled else [Completed(Usage(1, 1))]), seconds=0)
    machine = generate.AnswerDeps(rules.settings, provider, lambda: instants[-1])  # type: ignore[arg-type]  # the test's provider
    channel = generate.begin(a_call(), running, machine)
    reading = asyncio.create_task(told(channel))
    if is_cancelled:
        await asks(channel, running, rules)
    await asyncio.to_thread(ending.wait, 20)
    for _ in range(6):  # a minute passes, in which somebody looks every ten seconds
        instants.append(instants[-1] + timedelta(seconds=10))
        await until(lambda: stored(running).last_progress_at == instants[-1])
        look = Call(a_call().caller, instants[-1] + timedelta(seconds=20), new_id)
        assert not orphans.ended_as_orphan(look, stored(running), rules.settings)
    go_on.set()
    assert (await reading)[-1].name == ("error" if is_cancelled else "done")


async def test_a_client_that_is_held_back_misses_nothing_when_its_turn_is_stopped() -> None:
    """The producer waits for room with an event in its hand; when it is stopped then, that event is told, too."""

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        for number in range(100):
            yield TextDelta(f"{number} ")

    rules = some_rules(channel_capacity=16)
    running = a_running_turn(rules)
    channel = begun(Scripted(script), rules, running)
    await until(lambda: len(channel.waiting) >= 16)
    stopping = asyncio.create_task(generate.stop_all(20))
    async with asyncio.timeout(20), aclosing(each(channel.read(60))) as events:
        numbers = [one.number async for one in events]
    await stopping
    assert numbers == list(range(1, len(numbers) + 1))
    assert stored(running).events_stored == len(numbers)


@pytest.mark.parametrize(("setting", "state"), [("continue", TurnState.COMPLETED), ("cancel", TurnState.CANCELLED)])
async def test_a_turn_whose_client_had_left_before_the_first_byte_is_made(setting: str, state: TurnState) -> None:
    go_on = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        for _ in range(100):  # more than the channel holds
            yield TextDelta("x")
        await go_on.wait()
        yield Completed(Usage(1, 1))

    async def gone(*_: object) -> None:
        raise OSError("the client has left")

    rules = some_rules(on_disconnect=setting)
    running = a_running_turn(rules)
    channel = begun(Scripted(script), rules, running)
    response = EventStream(encoded(channel.read(60)), on_end=channel.leave)
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}}
    with pytest.raises(ClientDisconnect):
        await response(scope, asyncio.Event().wait, gone)  # type: ignore[arg-type]  # nothing is received
    if setting == "continue":
        go_on.set()
    await until(is_over(running))
    assert stored(running).state is state


@pytest.mark.parametrize(("setting", "state"), [("continue", TurnState.COMPLETED), ("cancel", TurnState.CANCELLED)])
async def test_a_request_that_is_cancelled_between_commit_and_answer_leaves_no_turn_behind(
    setting: str, state: TurnState
) -> None:
    committed, go_on = threading.Event(), threading.Event()
    rules = some_rules(on_disconnect=setting)
    turns_made: list[RunningTurn] = []

    def admission() -> RunningTurn:
        turns_made.append(a_running_turn(rules))
        committed.set()
        assert blocked.until(go_on)
        return turns_made[0]

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        for _ in range(100):
            yield TextDelta("x")
        if setting == "cancel":
            await asyncio.Event().wait()
        yield Completed(Usage(1, 1))

    machine = generate.AnswerDeps(rules.settings, Scripted(script), lambda: a_call().now)  # type: ignore[arg-type]  # the test's provider
    admitted = generate.admitted(asyncio.to_thread(admission), a_call(), machine)
    request = asyncio.create_task(generate.with_answers(admitted))
    await asyncio.to_thread(committed.wait, 20)
    request.cancel()
    await asyncio.wait({request}, timeout=0.1)
    go_on.set()
    with suppress(asyncio.CancelledError):
        await request
    assert stored(turns_made[0]).state is state


async def test_of_several_requests_each_waits_for_its_own_answer_alone() -> None:
    rules, go_on = some_rules(), asyncio.Event()

    async def script(said: asyncio.Event) -> AsyncGenerator[ProviderChunk, None]:
        await said.wait()
        yield Completed(Usage(1, 1))

    async def request(running: RunningTurn, said: asyncio.Event) -> None:
        machine = generate.AnswerDeps(rules.settings, Scripted(lambda: script(said)), lambda: a_call().now)  # type: ignore[arg-type]  # the test's provider
        generate.begin(a_call(), running, machine).leave()

    now = asyncio.Event()
    now.set()
    slow = asyncio.create_task(generate.with_answers(request(a_running_turn(rules), go_on)))
    async with asyncio.timeout(20):
        await generate.with_answers(request(a_running_turn(rules), now))
        assert not slow.done()
        go_on.set()
        await slow


async def test_a_stopping_process_ends_turns_that_it_was_about_to_begin() -> None:
    committed, go_on = threading.Event(), threading.Event()
    rules = some_rules()
    turns_made: list[RunningTurn] = []

    def admission() -> RunningTurn:
        turns_made.append(a_running_turn(rules))
        committed.set()
        assert blocked.until(go_on)
        return turns_made[0]

    machine = generate.AnswerDeps(rules.settings, Closing(seconds=0), lambda: a_call().now)  # type: ignore[arg-type]  # the test's provider
    request = asyncio.create_task(generate.admitted(asyncio.to_thread(admission), a_call(), machine))
    await asyncio.to_thread(committed.wait, 20)
    request.cancel()
    stopping = asyncio.create_task(generate.stop_all(20))
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    assert (stored(turns_made[0]).state, stored(turns_made[0]).error_code) == (TurnState.FAILED, "interrupted")


async def test_a_refusal_of_a_request_that_was_cancelled_is_nobodys() -> None:
    go_on = threading.Event()

    def admission() -> RunningTurn:
        assert blocked.until(go_on)
        raise errors.ChatNotFound

    machine = generate.AnswerDeps(some_rules().settings, Closing(seconds=0), lambda: a_call().now)  # type: ignore[arg-type]  # the test's provider
    request = asyncio.create_task(generate.admitted(asyncio.to_thread(admission), a_call(), machine))
    await asyncio.sleep(0)
    request.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await request
    await asyncio.wait_for(asyncio.gather(*generate._admissions, return_exceptions=True), 20)


async def test_a_channel_holds_no_more_than_its_capacity_and_lets_go_when_its_reader_leaves() -> None:
    channel = Channel(16)
    putting = asyncio.create_task(_put_all(channel, 100))
    await until(lambda: len(channel.waiting) >= 16)
    await asyncio.sleep(0)
    assert len(channel.waiting) == 16
    channel.leave()
    await asyncio.wait_for(putting, 20)


async def _put_all(channel: Channel, count: int) -> None:
    for number in range(count):
        await channel.put(Numbered(number + 1, Told("delta", {"type": "text", "content": "x"})))
