"""Making an answer: what ends it, that its end is stored before it is told, and that a slow client holds it back."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from uuid import uuid4

import pytest
from pydantic import SecretStr

from minichat.domain.answer_end import DEADLINE, INTERRUPTED, LENGTH
from minichat.domain.answer_end import told as signal_told
from minichat.domain.citations import Citation, Cited, CitedFile
from minichat.domain.identity import AttachmentId, ChatId, RequestId, TenantId
from minichat.domain.settlement import Ending
from minichat.domain.stream import Citations, Told, error
from minichat.domain.stream import told as as_told
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage import Usage
from minichat.providers import identity
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity, ToolName
from minichat.providers.prompt import Prompt
from minichat.services import chats, generate
from minichat.services.channel import Channel
from minichat.services.finalize import End, finalize
from minichat.services.new_turn import RunningTurn, SendMessage
from minichat.services.policy_in_force import Rules
from minichat.services.send import send
from minichat.settings import Quota, Store, Streaming
from minichat.storage import messages, turns
from tests.support import blocked
from tests.support.domain.builders import a_call, a_model, a_policy, unhurried
from tests.support.patience import PATIENCE
from tests.support.services.events import each
from tests.support.storage.faults import answered_instead, refused
from tests.support.storage.invariants import Tables, violations

pytestmark = pytest.mark.usefixtures("store")

Script = Callable[[], AsyncGenerator[ProviderChunk, None]]


class Scripted:
    """A provider that says what a test wants; `closed` is set when nobody listens any more."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.closed = asyncio.Event()
        self.prompts: list[Prompt] = []

    async def stream(
        self, tenant_id: TenantId, provider_id: str, prompt: Prompt
    ) -> AsyncGenerator[ProviderChunk, None]:
        assert (tenant_id, provider_id) == (a_call().caller.tenant_id, "openai")
        self.prompts.append(prompt)
        try:
            async with aclosing(self._script()) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.closed.set()

    async def aclose(self) -> None:
        """Nothing is open."""


def some_rules(**streaming: object) -> Rules:
    settings = unhurried(streaming=Streaming.model_validate({"progress_interval_seconds": 0.2, **streaming}))
    return Rules(settings, a_policy(a_model(preference={"is_default": True})))


def searching_rules(a_day: int) -> Rules:
    """Rules by which the web may be searched that often a day, and twice per message."""
    model = a_model(preference={"is_default": True}, general_config={"tool_support": {"web_search": True}})
    settings = some_rules().settings.model_copy(update={"quota": Quota(web_search_daily_quota=a_day)})
    return Rules(settings, a_policy(model))


def a_running_turn(rules: Rules, *, web_search: bool = False, content: str = "hello") -> RunningTurn:
    chat = chats.create(a_call(), chats.NewChat(), rules)
    command = SendMessage(ChatId(chat.chat_id), content, RequestId(str(uuid4())), web_search=web_search)
    running = send(a_call(), command, rules)
    assert isinstance(running, RunningTurn)
    return running


def begun(provider: Scripted, rules: Rules, running: RunningTurn) -> Channel:
    machine = generate.AnswerDeps(rules.settings, provider, lambda: a_call().now)  # type: ignore[arg-type]  # the test's provider
    return generate.begin(a_call(), running, machine)


async def told(channel: Channel) -> list[Told]:
    async with asyncio.timeout(60):
        return [numbered.event async for numbered in each(channel.read(ping_seconds=60))]


def stored(running: RunningTurn) -> Turn:
    _, turn = turns.read(running.turn.tenant_id, running.turn.chat_id, running.turn.request_id)
    assert turn is not None
    return turn


@pytest.mark.holds("contract.one-terminal")
async def test_an_answer_is_told_after_it_was_stored() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("Hel")
        yield TextDelta("lo")
        yield Completed(Usage(10, 2), "resp_1")

    rules = some_rules()
    running = a_running_turn(rules)
    events = each(begun(Scripted(script), rules, running).read(ping_seconds=60))
    states = [stored(running).state async for numbered in events if numbered.event.name == "done"]
    assert states == [TurnState.COMPLETED]
    assert stored(running).provider_response_id == "resp_1"


@pytest.mark.parametrize(
    ("last", "code", "method"),
    [
        (Failed("provider_timeout", "detail", Usage(5, 5)), "provider_timeout", "actual"),
        (Failed("rate_limited"), "rate_limited", "estimated"),
        (Failed("provider_error", reached=False), "provider_error", "released"),
        (Failed("rate_limited", refused=True), "rate_limited", "released"),
    ],
)
async def test_a_failure_is_settled_by_what_it_cost(last: ProviderChunk, code: str, method: str) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield last

    rules = some_rules()
    running = a_running_turn(rules)
    events = await told(begun(Scripted(script), rules, running))
    assert events[-1] == as_told(error(code))
    assert (stored(running).error_code, stored(running).settlement_method) == (code, method)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_an_answer_that_breaks_off_costs_the_share_that_was_told(share: float) -> None:
    words, tokens_of_a_word = 2000, 2  # of eight bytes, at four bytes a token

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        for _ in range(int(words * share) // 100):
            yield TextDelta("another " * 100)
        yield Failed("provider_error")

    rules = some_rules()
    running = a_running_turn(rules)
    await told(begun(Scripted(script), rules, running))
    reserve = running.turn.reserve
    asked = (reserve.tokens - reserve.max_output_tokens) * reserve.input_multiplier // 1_000_000
    whole = words * tokens_of_a_word * reserve.output_multiplier // 1_000_000
    committed = stored(running).committed_credits_micro
    assert committed is not None
    assert committed - asked == pytest.approx(whole * share, rel=0.1)


@pytest.mark.holds("contract.cancelled-text")
async def test_a_cancelled_turn_keeps_its_text_and_closes_the_provider() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("partial")
        await asyncio.Event().wait()

    rules = some_rules()
    running, provider = a_running_turn(rules), Scripted(script)
    channel = begun(provider, rules, running)
    reading = asyncio.create_task(told(channel))
    await asyncio.to_thread(chats.delete, a_call(), running.turn.chat_id)
    events = await reading
    assert events[-1] == Told("error", {"code": "cancelled", "message": "The turn was cancelled."})
    assert provider.closed.is_set()
    turn = stored(running)
    assert (turn.state, turn.answered, turn.settlement_method) == (TurnState.CANCELLED, True, "estimated")


async def test_a_cancelled_turn_without_text_has_no_answer() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        await asyncio.Event().wait()
        yield TextDelta("never")

    rules = some_rules()
    running = a_running_turn(rules)
    reading = asyncio.create_task(told(begun(Scripted(script), rules, running)))
    await asyncio.to_thread(chats.delete, a_call(), running.turn.chat_id)
    await reading
    assert not stored(running).answered


@pytest.mark.holds("contract.one-terminal")
async def test_a_turn_that_somebody_else_ended_is_left_alone() -> None:
    release = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("zombie")
        await release.wait()
        yield Completed(Usage(1, 1))

    # The sign of life comes too late to notice: only the finalizer's condition stands between them.
    rules = some_rules(progress_interval_seconds=5)
    running = a_running_turn(rules)
    reading = asyncio.create_task(told(begun(Scripted(script), rules, running)))
    await asyncio.to_thread(
        finalize, a_call(), running.turn, Ending(TurnState.FAILED, "orphan_timeout"), rules.settings
    )
    before = stored(running)
    release.set()
    events = await reading
    assert [event.name for event in events] == ["stream_started", "delta"]
    assert stored(running) == before


async def test_a_writer_that_lost_its_turn_notices_by_its_sign_of_life() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        await asyncio.Event().wait()
        yield TextDelta("never")

    rules = some_rules()
    running, provider = a_running_turn(rules), Scripted(script)
    reading = asyncio.create_task(told(begun(provider, rules, running)))
    await asyncio.to_thread(
        finalize, a_call(), running.turn, Ending(TurnState.FAILED, "orphan_timeout"), rules.settings
    )
    assert [event.name for event in await reading] == ["stream_started"]
    assert provider.closed.is_set()


@pytest.mark.holds("contract.deadline")
async def test_a_turn_ends_when_its_time_is_up() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("slow")
        await asyncio.Event().wait()

    rules = some_rules(deadline_seconds=5)
    rules = Rules(
        rules.settings.model_copy(
            update={"streaming": rules.settings.streaming.model_copy(update={"deadline_seconds": 0.3})}
        ),
        rules.policy,
    )
    running = a_running_turn(rules)
    events = await told(begun(Scripted(script), rules, running))
    assert events[-1].name == "done"
    assert events[-1].data["completion_signal"] == signal_told(DEADLINE)
    turn = stored(running)
    assert (turn.state, turn.completion_signal, turn.settlement_method) == (TurnState.COMPLETED, DEADLINE, "estimated")


@pytest.mark.holds("contract.deadline")
async def test_a_turn_whose_time_is_up_before_its_answer_began_has_failed() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        await asyncio.Event().wait()
        yield TextDelta("never")

    rules = some_rules()
    hasty = rules.settings.streaming.model_copy(update={"deadline_seconds": 0.3})
    rules = Rules(rules.settings.model_copy(update={"streaming": hasty}), rules.policy)
    running = a_running_turn(rules)
    events = await told(begun(Scripted(script), rules, running))
    assert events[-1] == as_told(error("provider_timeout"))
    assert (stored(running).state, stored(running).completion_signal) == (TurnState.FAILED, None)


@pytest.mark.holds("contract.stopped")
async def test_a_stopping_process_ends_its_turns() -> None:
    started = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("until now")
        started.set()
        await asyncio.Event().wait()

    rules = some_rules()
    running = a_running_turn(rules)
    reading = asyncio.create_task(told(begun(Scripted(script), rules, running)))
    await started.wait()
    await generate.stop_all(10)
    last = (await reading)[-1]
    assert last.name == "done"
    assert (last.data["completion_signal"], last.data["usage"]) == (signal_told(INTERRUPTED), None)
    assert (stored(running).state, stored(running).completion_signal) == (TurnState.COMPLETED, INTERRUPTED)


@pytest.mark.holds("contract.stopped")
async def test_a_process_that_stops_before_an_answer_began_says_so() -> None:
    called = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        called.set()
        await asyncio.Event().wait()
        yield TextDelta("never")

    rules = some_rules()
    running = a_running_turn(rules)
    reading = asyncio.create_task(told(begun(Scripted(script), rules, running)))
    await called.wait()
    await generate.stop_all(10)
    assert (await reading)[-1] == as_told(error("interrupted"))
    assert (stored(running).state, stored(running).error_code) == (TurnState.FAILED, "interrupted")


@pytest.mark.parametrize(("setting", "state"), [("continue", TurnState.COMPLETED), ("cancel", TurnState.CANCELLED)])
async def test_a_reader_that_leaves_ends_the_turn_only_where_so_configured(setting: str, state: TurnState) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        # More than the channel holds: a producer that waited for a reader that left would never end.
        for _ in range(100):
            yield TextDelta("x")
        await asyncio.sleep(0)
        if setting == "cancel":
            await asyncio.Event().wait()
        yield Completed(Usage(1, 1))

    rules = some_rules(on_disconnect=setting)
    running = a_running_turn(rules)
    channel = begun(Scripted(script), rules, running)
    async with aclosing(each(channel.read(ping_seconds=60))) as events:
        assert (await anext(events)).event.name == "stream_started"
    await asyncio.wait(generate._answers, timeout=PATIENCE)
    assert stored(running).state is state


async def test_the_provider_is_read_no_faster_than_the_client() -> None:
    said = 0

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        nonlocal said
        for _ in range(200):
            said += 1
            yield TextDelta("x")
        yield Completed(Usage(1, 1))

    rules = some_rules(channel_capacity=16)
    running = a_running_turn(rules)
    events = each(begun(Scripted(script), rules, running).read(ping_seconds=60))
    await anext(events)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert said <= 16 + 2
    assert sum(numbered.event.name == "delta" for numbered in [n async for n in events]) == 200


@pytest.mark.holds("contract.ping")
async def test_a_silent_provider_is_bridged_by_pings_without_numbers() -> None:
    release = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        await release.wait()
        yield TextDelta("at last")
        yield Completed(Usage(1, 1))

    rules = some_rules()
    running = a_running_turn(rules)
    numbers = []
    async for numbered in each(begun(Scripted(script), rules, running).read(ping_seconds=0.01)):
        numbers.append(numbered.number)
        if numbered.event.name == "ping":
            release.set()
    assert None in numbers
    assert [number for number in numbers if number is not None] == [1, 2, 3]


async def test_an_end_that_cannot_be_stored_at_once_is_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield Completed(Usage(1, 1))

    monkeypatch.setattr("minichat.storage.transact.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(generate, "FINALIZE_PAUSES_SECONDS", (0.01, 0.01))
    rules = some_rules()
    running = a_running_turn(rules)
    with answered_instead("TransactWriteItems", [refused("ThrottlingException")] * 2):
        events = await told(begun(Scripted(script), rules, running))
    assert events[-1].name == "done"


async def test_an_end_that_cannot_be_stored_is_never_told_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield Completed(Usage(1, 1))

    monkeypatch.setattr("minichat.storage.transact.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(generate, "FINALIZE_PAUSES_SECONDS", (0.01,))
    rules = some_rules()
    running = a_running_turn(rules)
    with answered_instead("TransactWriteItems", [refused("ThrottlingException")] * 100):
        events = await told(begun(Scripted(script), rules, running))
    # It closes without a last word: the turn still runs as far as anybody knows, and who resumes it learns its end.
    assert [event.name for event in events] == ["stream_started"]
    assert stored(running).state is TurnState.RUNNING


@pytest.mark.parametrize(("left_today", "may"), [(75, 2), (1, 1)])
@pytest.mark.holds("turns.beyond-aside")
async def test_more_tool_calls_than_were_set_aside_end_the_turn(store: Store, left_today: int, may: int) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        for _ in range(3):
            yield ToolActivity("web_search", "start")
            yield ToolActivity("web_search", "done")
        yield Completed(Usage(1, 1))

    rules = searching_rules(left_today)
    running, provider = a_running_turn(rules, web_search=True), Scripted(script)
    events = await told(begun(provider, rules, running))
    assert events[-1].name == "error"
    assert events[-1].data["code"] == "web_search_calls_exceeded"
    # The call that was one too many was not made: it ended the turn.
    assert stored(running).tool_calls.web_search == may
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize("tool", ["code_interpreter", "file_search"])
@pytest.mark.holds("turns.beyond-aside")
async def test_more_calls_of_another_tool_than_were_set_aside_end_it_too(store: Store, tool: ToolName) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        for _ in range(3):
            yield ToolActivity(tool, "start")
            yield ToolActivity(tool, "done")
        yield Completed(Usage(1, 1))

    rules = some_rules()
    running = a_running_turn(rules)
    reserve = replace(running.turn.reserve, code_interpreter_calls=2, file_search_calls=2)
    running = replace(running, turn=replace(running.turn, reserve=reserve))
    last = (await told(begun(Scripted(script), rules, running)))[-1]
    assert last == as_told(error(f"{tool}_calls_exceeded"))
    assert (stored(running).error_code, getattr(stored(running).tool_calls, tool)) == (f"{tool}_calls_exceeded", 2)


async def test_a_tool_that_was_not_offered_ends_the_turn_at_its_first_call() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield ToolActivity("web_search", "start")
        yield Completed(Usage(1, 1))

    rules = searching_rules(75)
    running = a_running_turn(rules)
    assert (await told(begun(Scripted(script), rules, running)))[-1].name == "error"
    assert (stored(running).error_code, stored(running).tool_calls.web_search) == ("web_search_calls_exceeded", 0)


@pytest.mark.holds("turns.last-search")
async def test_a_provider_is_told_of_what_is_left_of_the_day() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield Completed(Usage(1, 1))

    for left_today, most in ((75, 2), (1, 1)):
        rules, provider = searching_rules(left_today), Scripted(script)
        await told(begun(provider, rules, a_running_turn(rules, web_search=True)))
        assert [prompt.max_tool_calls for prompt in provider.prompts] == [most]


async def test_a_provider_is_told_who_asks_in_hashes_and_its_own_name_of_the_answer_is_found_by_operators(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield Completed(Usage(1, 1), "resp_of_the_provider")

    rules, provider = some_rules(), Scripted(script)
    rules = replace(rules, settings=rules.settings.model_copy(update={"cursor_secret": SecretStr("a secret")}))
    running, trace_id = a_running_turn(rules), "4bf92f3577b34da6a3ce929d0e0e4736"
    machine = generate.AnswerDeps(rules.settings, provider, lambda: a_call().now)  # type: ignore[arg-type]  # the test's provider
    events = await told(generate.begin(replace(a_call(), trace_id=trace_id), running, machine))
    (prompt,) = provider.prompts
    asker = identity.Asker.of_turn(running.turn, trace_id)
    assert prompt.user == identity.told(prompt, asker, "a secret").user == prompt.metadata["user"]
    assert str(prompt.traceparent).startswith(f"00-{trace_id}-")
    assert running.turn.requester_user_id not in repr(prompt)
    assert stored(running).provider_response_id == "resp_of_the_provider"
    (line,) = [vars(record) for record in caplog.records if record.message == "answer"]
    assert (line["provider_response_id"], line["trace_id"]) == ("resp_of_the_provider", trace_id)
    assert (line["turn_id"], line["state"]) == (running.turn.turn_id, "completed")
    assert "resp_of_the_provider" not in repr(events)


@pytest.mark.holds("turns.not-stored")
async def test_an_answer_that_the_store_will_never_take_ends_as_failed(store: Store) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("unstorable")
        yield Completed(Usage(3, 4))

    rules = some_rules()
    running = a_running_turn(rules)
    with answered_instead("TransactWriteItems", [refused("ValidationException")]):
        events = await told(begun(Scripted(script), rules, running))
    assert events[-1].name == "error"
    turn = stored(running)
    assert (turn.state, turn.error_code, turn.answered) == (TurnState.FAILED, "message_persistence_failed", False)
    assert (turn.settlement_method, turn.usage) == ("actual", Usage(3, 4))
    assert violations(Tables.of(store)) == []


@pytest.mark.parametrize("is_too_long", [False, True])
async def test_an_answer_that_the_store_will_never_take_costs_the_text_that_was_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, is_too_long: bool
) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("unstorable " * 400)
        yield Completed(Usage())

    if is_too_long:
        monkeypatch.setattr("minichat.services.finalize.fits_a_message", lambda text: not text)
    rules = some_rules()
    running = a_running_turn(rules)
    with answered_instead("TransactWriteItems", [] if is_too_long else [refused("ValidationException")]):
        await told(begun(Scripted(script), rules, running))
    turn, reserve = stored(running), running.turn.reserve
    assert (turn.error_code, turn.settlement_method) == ("message_persistence_failed", "estimated")
    tokens = len("unstorable " * 400) // reserve.bytes_per_token
    asked = (reserve.tokens - reserve.max_output_tokens) * reserve.input_multiplier // 1_000_000
    assert turn.committed_credits_micro == asked + tokens * reserve.output_multiplier // 1_000_000
    assert violations(Tables.of(store)) == []


A_PAGE = Cited("web", "https://example.com/a", "A title", "It says so.", (0, 5))
CITED = Citation("web", "https://example.com/a", "A title", "It says so.", (0, 5))


def of_answer(running: RunningTurn) -> tuple[Citation, ...]:
    turn = running.turn
    message = messages.read(turn.tenant_id, turn.chat_id, turn.assistant_message_id)
    return message.citations if message else ()


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.holds("contract.citations")
async def test_what_an_answer_cites_is_told_before_its_end_and_stored_with_it(*, is_cut: bool) -> None:
    cited = (A_PAGE, Cited("file", "file-abc"), Cited("file", "file-of-another-chat"), A_PAGE)

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("Paris")
        if is_cut:
            yield Incomplete(LENGTH, Usage(1, 1), "resp_1", cited)
        else:
            yield Completed(Usage(1, 1), "resp_1", cited)

    rules = some_rules()
    file = CitedFile(AttachmentId(str(uuid4())), "a.pdf")
    running = replace(a_running_turn(rules), files={"file-abc": file})
    async with asyncio.timeout(60):
        events = [one async for one in each(begun(Scripted(script), rules, running).read(ping_seconds=60))]
    found = (CITED, Citation("file", file.attachment_id, "a.pdf"))
    assert [one.number for one in events] == [1, 2, 3, 4]
    assert [one.event.name for one in events] == ["stream_started", "delta", "citations", "done"]
    assert events[2].event == as_told(Citations(found))
    assert of_answer(running) == found
    assert (stored(running).events_stored, stored(running).terminal_number) == (4, None)


async def test_an_answer_that_cites_nothing_of_ours_is_told_without_citations() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("Paris")
        yield Completed(Usage(1, 1), None, (Cited("file", "file-abc"), Cited("web", "javascript:alert(1)")))

    rules = some_rules()
    running = a_running_turn(rules)
    events = await told(begun(Scripted(script), rules, running))
    assert [event.name for event in events] == ["stream_started", "delta", "done"]
    assert of_answer(running) == ()


async def test_an_answer_that_cannot_be_stored_cites_nothing(store: Store) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("unstorable")
        yield Completed(Usage(3, 4), None, (A_PAGE,))

    rules = some_rules()
    running = a_running_turn(rules)
    with answered_instead("TransactWriteItems", [refused("ValidationException")]):
        events = await told(begun(Scripted(script), rules, running))
    assert [event.name for event in events] == ["stream_started", "delta", "error"]
    assert stored(running).events_stored == 3
    assert violations(Tables.of(store)) == []


async def test_an_answer_that_lost_its_turn_cites_nothing() -> None:
    release = asyncio.Event()

    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("zombie")
        await release.wait()
        yield Completed(Usage(1, 1), None, (A_PAGE,))

    rules = some_rules(progress_interval_seconds=5)
    running = a_running_turn(rules)
    reading = asyncio.create_task(told(begun(Scripted(script), rules, running)))
    await asyncio.to_thread(
        finalize, a_call(), running.turn, Ending(TurnState.FAILED, "orphan_timeout"), rules.settings
    )
    release.set()
    assert [event.name for event in await reading] == ["stream_started", "delta"]
    assert of_answer(running) == ()


async def test_a_stream_ends_even_when_nothing_can_be_stored() -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield Completed(Usage(1, 1))

    rules = some_rules()
    running = a_running_turn(rules)
    with answered_instead("TransactWriteItems", [refused("ValidationException")] * 5):
        events = await told(begun(Scripted(script), rules, running))
    assert [event.name for event in events] == ["stream_started"]


async def test_a_stop_while_a_turn_is_ending_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script() -> AsyncGenerator[ProviderChunk, None]:
        yield TextDelta("done")
        yield Completed(Usage(1, 1))

    ending, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    store = End.store

    def slowly(end: End) -> object:
        loop.call_soon_threadsafe(ending.set)
        assert blocked.until(go_on)
        return store(end)

    monkeypatch.setattr(End, "store", slowly)
    rules = some_rules()
    running = a_running_turn(rules)
    reading = asyncio.create_task(told(begun(Scripted(script), rules, running)))
    await ending.wait()
    stopping = asyncio.create_task(generate.stop_all(10))
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    assert (await reading)[-1].name == "done"
