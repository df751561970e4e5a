"""Makes the answer of a running turn and tells it as a stream; exactly one end, stored before it is told.

The turn is made by a task of its own: a client that leaves does not take it along (contract 3, architecture 4).

    begin ── task: _produce ──┬─ reading   provider → text, tools → channel → client
                              ├─ recording every second: what was told, sign of life, cancel flag
                              └─ deadline  the time that the function has left
             whichever ends first → finalize (one transaction) → `done` | `error` → closed
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from minichat.domain.citations import Cited, citations
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import Call, Clock
from minichat.domain.settlement import KNOWN_ERROR_CODES, Ending
from minichat.domain.stream import Citations, Delta, Started, StreamEvent, Tool
from minichat.domain.turn import ToolCalls, Turn, TurnState
from minichat.domain.usage import Usage
from minichat.observability import count, emit, logger, observe
from minichat.providers.chunks import Completed, Failed, Incomplete, TextDelta, ToolActivity
from minichat.providers.prompt import Prompt, PromptMessage
from minichat.providers.registry import Providers
from minichat.services.channel import Channel, Numbered
from minichat.services.finalize import End, Ended, Finalizer, terminal_event
from minichat.services.record import Record
from minichat.services.send import Replay, Running
from minichat.settings import Settings
from minichat.storage import turns

FINALIZE_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Between the attempts to store an end while the store does not answer; after the last the watchdog does it."""

SETTLING_SECONDS = 10
"""What an answer that was cut short needs to be settled and stored."""

T = TypeVar("T")

_answers: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Machine:
    """What making answers needs from its process."""

    settings: Settings
    providers: Providers
    clock: Clock


@dataclass(slots=True)
class _Answer:
    """What has come from the provider so far."""

    texts: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    response_id: str | None = None
    cited: tuple[Cited, ...] = ()
    tool_calls: dict[str, int] = field(default_factory=dict)
    called: bool = False
    first_text_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Stream:
    """What one answer is told through."""

    record: Record
    channel: Channel

    async def tell(self, event: StreamEvent) -> None:
        """Numbers the event, so that it will be stored, and hands it to the client."""
        await self.channel.put(self.record.add(event))


class _Lost(Exception):
    """Another finalizer ended the turn: this writer stops without effect."""


def begin(call: Call, running: Running, machine: Machine) -> Channel:
    """Starts the task that makes the answer; what it tells comes out of the channel. Call it on the event loop.

    An answer that the invocation has no time for is cut short early enough to be settled and stored within it.
    """
    streaming = machine.settings.streaming
    channel = Channel(streaming.channel_capacity)
    task = asyncio.create_task(_produce(call, running, machine, channel))
    if streaming.on_disconnect == "cancel":
        channel.on_leave = task.cancel
    _answers.add(task)
    task.add_done_callback(_answers.discard)
    # The client may leave, and the edge of its request with it: nobody else would write what comes after.
    task.add_done_callback(lambda _: emit(machine.settings.metrics_namespace))
    observe("active_streams", len(_answers), "Count")
    return channel


def seconds_for(call: Call, settings: Settings) -> float:
    """How long the stream of a call may take: what is configured, or less when its invocation ends before."""
    left = math.inf if call.ends_at is None else (call.ends_at - call.now).total_seconds() - SETTLING_SECONDS
    return max(min(settings.streaming.deadline_seconds, left), 0)


async def stop_all(seconds: float) -> None:
    """Ends every answer of this process as cancelled, with the text it has: for shutdown."""
    for task in _answers:
        task.cancel()
    if _answers:
        await asyncio.wait(_answers, timeout=seconds)


LEASE_RENEWAL_SECONDS = 5
"""Between two writes of a sign of life, which is the longest that a living turn is silent (turns-and-quota 8)."""


async def replay(stored: Replay) -> AsyncIterator[Numbered]:
    """A completed turn told again from what was stored: no provider, no quota, no write (contract 3, rule 5)."""
    turn = stored.turn
    events: tuple[StreamEvent, ...] = (
        Started(turn.request_id, turn.assistant_message_id, is_new_turn=False),
        Delta(stored.text),
        *([Citations(stored.citations)] if stored.citations else []),
        terminal_event(turn, turn.state, None, turn.usage),
    )
    for number, event in enumerate(events, start=1):
        yield Numbered(number, event)


async def _produce(call: Call, running: Running, machine: Machine, channel: Channel) -> None:
    turn = running.turn
    stream = _Stream(Record(), channel)
    model = running.admission.model
    count("stream_started_total", provider=model.provider_id, model=model.id)
    try:
        await stream.tell(Started(turn.request_id, turn.assistant_message_id, True, turn.summary_tokens))
        ending = await _answer(call, running, machine, stream)
        ended = await _undisturbed(_finalize(call, running, ending, machine, stream.record))
        if ended is not None:
            _measure(running, ended.ending, machine.clock())
            for number, event in enumerate(ended.last_events, start=ended.number):
                await channel.put(Numbered(number, event))
    except _Lost:
        # Another finalizer ended the turn: its status is the truth, and not ours to tell.
        count("cas_lost_total", actor="stream")
    except Exception:  # the edge of a stream: whatever it is, the client must not wait for ever
        # Without a terminal event: the turn still runs as far as anybody knows, and who resumes it learns its end.
        logger.exception("a turn could not be ended", extra={"turn_id": turn.turn_id})
    await channel.close()


def _measure(running: Running, ending: Ending, now: datetime) -> None:
    provider, model = running.admission.model.provider_id, running.admission.model.id
    match ending.state:
        case TurnState.COMPLETED:
            count("stream_completed_total", provider=provider, model=model)
        case TurnState.CANCELLED:
            count("stream_cancelled_total", provider=provider, model=model)
        case _:
            code = ending.error_code if ending.error_code in KNOWN_ERROR_CODES else "internal_error"
            count("stream_failed_total", provider=provider, model=model, error_code=str(code))
    if ending.ttft_ms is not None:
        observe("ttft_ms", ending.ttft_ms, "Milliseconds", provider=provider, model=model)
    total_ms = (now - running.turn.started_at).total_seconds() * 1000
    observe("stream_total_ms", total_ms, "Milliseconds", provider=provider, model=model)


async def _undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that a stopping process must not break off."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            _uncancel()
    return task.result()


async def _answer(call: Call, running: Running, machine: Machine, stream: _Stream) -> Ending:
    """How the answer ended: by the provider's last word, a cancel, the deadline or a shutdown.

    Raises _Lost when somebody else ended the turn.
    """
    answer = _Answer()
    reading = asyncio.create_task(_read(running, machine, stream, answer))
    recording = asyncio.create_task(_record(call, running.turn, machine, answer, stream.record))
    try:
        await asyncio.wait(
            {reading, recording},
            timeout=seconds_for(call, machine.settings),
            return_when=asyncio.FIRST_COMPLETED,
        )
    except asyncio.CancelledError:
        # The process stops or, where so configured, the client left: the turn still gets its honest end.
        _uncancel()
    ended, flagged = reading.done(), recording.done()
    for task in (reading, recording):
        task.cancel()
    await asyncio.gather(reading, recording, return_exceptions=True)
    if ended:
        ending = _outcome(reading)
    elif flagged and (problem := recording.exception()) is not None:
        raise problem
    else:
        ending = Ending(TurnState.CANCELLED)
    return _with(answer, ending, running)


async def _read(running: Running, machine: Machine, stream: _Stream, answer: _Answer) -> Ending:
    model = running.admission.model
    limits = {
        "web_search": machine.settings.quota.web_search_max_calls_per_message,
        "code_interpreter": machine.settings.quota.code_interpreter_max_calls_per_message,
    }
    answer.called = True
    async with aclosing(
        machine.providers.stream(running.turn.tenant_id, model.provider_id, _prompt(running))
    ) as chunks:
        async for chunk in chunks:
            match chunk:
                case TextDelta(text=text):
                    answer.first_text_at = answer.first_text_at or machine.clock()
                    answer.texts.append(text)
                    await stream.tell(Delta(text))
                case ToolActivity(name=name, phase=phase):
                    calls = answer.tool_calls[name] = answer.tool_calls.get(name, 0) + (phase == "start")
                    if calls > limits.get(name, calls):
                        return Ending(TurnState.FAILED, f"{name}_calls_exceeded")
                    await stream.tell(Tool(phase, name))
                case Completed() | Incomplete():
                    answer.usage, answer.response_id, answer.cited = chunk.usage, chunk.response_id, chunk.citations
                    return Ending(TurnState.COMPLETED)
                case Failed(code=code, usage=usage, diagnostic=diagnostic, reached=reached):
                    answer.usage, answer.called = usage, reached
                    logger.warning("provider failed", extra={"code": code, "diagnostic": diagnostic})
                    return Ending(TurnState.FAILED, code)
    return Ending(TurnState.FAILED, "provider_error")


async def _record(call: Call, turn: Turn, machine: Machine, answer: _Answer, record: Record) -> None:
    """Stores what is told and renews the turn's lease, until somebody asks the turn to stop.

    Raises _Lost when the turn is no longer running.
    """
    renewed_at = -math.inf
    while True:
        await asyncio.sleep(machine.settings.streaming.progress_interval_seconds)
        now = replace(call, now=machine.clock())
        renews = time.monotonic() - renewed_at >= LEASE_RENEWAL_SECONDS
        looking = (
            asyncio.to_thread(turns.progress, now, turn, provider_called=answer.called)
            if renews
            else asyncio.to_thread(turns.look, turn)
        )
        storing = record.store(turn, machine.settings.streaming)
        progress, stored = await asyncio.gather(looking, storing, return_exceptions=True)
        for problem in (progress, stored):
            # The next time tries again; the watchdog's patience is many times as long.
            if isinstance(problem, BaseException) and not isinstance(problem, ServiceUnavailable):
                raise problem
        if isinstance(progress, BaseException):
            continue
        if renews:
            renewed_at = time.monotonic()
        if progress is None:
            raise _Lost
        if progress.cancel_requested:
            return


async def _finalize(call: Call, running: Running, ending: Ending, machine: Machine, record: Record) -> Ended | None:
    """The end that was stored; None when another finalizer had won.

    Raises ServiceUnavailable when it could not be stored; the turn is left to whoever looks at it next.
    """
    turn, end = running.turn, None
    if ending.error_code is not None and ending.error_code not in KNOWN_ERROR_CODES:
        logger.critical("unknown error code", extra={"code": ending.error_code, "turn_id": turn.turn_id})
    for pause in (*FINALIZE_PAUSES_SECONDS, None):
        try:
            if end is None:
                if record.is_long:
                    await record.store(turn, machine.settings.streaming)
                told = tuple(record.pending)
                by = Finalizer(True, record.stored, told, running.limits, compression=running.compression)
                now = replace(call, now=machine.clock())
                end = await asyncio.to_thread(End, now, turn, ending, machine.settings, by)
            # The same end again: it may be stored already, and only the answer lost.
            return await asyncio.to_thread(end.store)
        except ServiceUnavailable:
            if pause is None:
                raise
            await asyncio.sleep(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _outcome(reading: asyncio.Task[Ending]) -> Ending:
    problem = reading.exception()
    if problem is None:
        return reading.result()
    logger.error("an answer broke off", exc_info=problem)
    return Ending(TurnState.FAILED, "internal_error")


def _with(answer: _Answer, ending: Ending, running: Running) -> Ending:
    ttft = answer.first_text_at - running.turn.started_at if answer.first_text_at else None
    text = "".join(answer.texts)
    return replace(
        ending,
        text=text,
        citations=citations(answer.cited, running.files, text) if ending.state is TurnState.COMPLETED else (),
        usage=answer.usage,
        provider_called=answer.called,
        provider_response_id=answer.response_id,
        tool_calls=ToolCalls(**answer.tool_calls),
        ttft_ms=int(ttft.total_seconds() * 1000) if ttft else None,
    )


def _prompt(running: Running) -> Prompt:
    model, assembly, tools = running.admission.model, running.admission.assembly, running.admission.tools
    summary = [PromptMessage("user", assembly.summary.told)] if assembly.summary is not None else []
    history = [PromptMessage("user" if m.role == "user" else "assistant", m.content) for m in assembly.history]
    images = tuple(image.provider_file_id for image in running.admission.images if image.provider_file_id is not None)
    return Prompt(
        model=model.provider_model_id,
        instructions=assembly.instructions,
        messages=(*summary, *history, PromptMessage("user", running.content, images)),
        max_output_tokens=running.turn.reserve.max_output_tokens,
        max_tool_calls=model.max_tool_calls if tools.any else None,
        web_search_context_size=model.web_search_context_size if tools.web_search else None,
        vector_stores=tools.vector_stores,
        max_num_results=model.max_num_results if tools.vector_stores else None,
        code_files=tools.code_files,
        api_params=model.general_config.api_params.model_dump(exclude_none=True, exclude_defaults=True),
    )


def _uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
