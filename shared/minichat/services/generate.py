"""Makes the answer of a running turn and tells it as a stream; exactly one end, stored before it is told.

The turn is made by a task of its own: a client that leaves does not take it along (contract 3, architecture 4).

    begin ── task: _produce ──┬─ reading   provider → text, tools → channel → client
                              ├─ beating   every second: sign of life, cancel flag
                              └─ deadline  the time that the function has left
             whichever ends first → finalize (one transaction) → `done` | `error` → closed
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import Call, Clock
from minichat.domain.policy import UserLimits
from minichat.domain.settlement import KNOWN_ERROR_CODES, Ending
from minichat.domain.standing import Remaining, remaining
from minichat.domain.stream import Delta, Done, Started, StreamEvent, Tool, error
from minichat.domain.turn import ToolCalls, Turn, TurnState
from minichat.domain.usage import Usage
from minichat.observability import logger
from minichat.providers.chunks import Completed, Failed, Incomplete, TextDelta, ToolActivity
from minichat.providers.prompt import Prompt, PromptMessage
from minichat.providers.registry import Providers
from minichat.services.channel import Channel, Numbered
from minichat.services.finalize import finalize
from minichat.services.send import Replay, Running
from minichat.settings import Settings
from minichat.storage import quota, turns

FINALIZE_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Between the attempts to store an end while the store does not answer; after the last the watchdog does it."""

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
    tool_calls: dict[str, int] = field(default_factory=dict)
    called: bool = False
    first_text_at: datetime | None = None


class _Lost(Exception):
    """Another finalizer ended the turn: this writer stops without effect."""


def begin(call: Call, running: Running, machine: Machine) -> Channel:
    """Starts the task that makes the answer; what it tells comes out of the channel. Call it on the event loop."""
    streaming = machine.settings.streaming
    channel = Channel(streaming.channel_capacity)
    task = asyncio.create_task(_produce(call, running, machine, channel))
    if streaming.on_disconnect == "cancel":
        channel.on_leave = task.cancel
    _answers.add(task)
    task.add_done_callback(_answers.discard)
    return channel


async def stop_all(seconds: float) -> None:
    """Ends every answer of this process as cancelled, with the text it has: for shutdown."""
    for task in _answers:
        task.cancel()
    if _answers:
        await asyncio.wait(_answers, timeout=seconds)


async def replay(stored: Replay) -> AsyncIterator[Numbered]:
    """A completed turn told again from what was stored: no provider, no quota, no write (contract 3, rule 5)."""
    turn = stored.turn
    events: tuple[StreamEvent, ...] = (
        Started(turn.request_id, turn.assistant_message_id, is_new_turn=False),
        Delta(stored.text),
        _done(turn, turn.usage),
    )
    for number, event in enumerate(events, start=1):
        yield Numbered(number, event)


async def _produce(call: Call, running: Running, machine: Machine, channel: Channel) -> None:
    turn = running.turn
    terminal: StreamEvent | None = None
    try:
        await channel.put(Started(turn.request_id, turn.assistant_message_id, is_new_turn=True))
        ending = await _answer(call, running, machine, channel)
        terminal = await _undisturbed(_finalize(call, running, ending, machine))
    except _Lost:
        pass  # another finalizer ended the turn: its status is the truth, and not ours to tell
    except Exception:  # the edge of a stream: whatever it is, the client must not wait for ever
        logger.exception("a turn could not be ended", extra={"turn_id": turn.turn_id})
        terminal = error("internal_error")
    if terminal is not None:
        await channel.put(terminal)
    await channel.close()


async def _undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that a stopping process must not break off."""
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            _uncancel()
    return task.result()


async def _answer(call: Call, running: Running, machine: Machine, channel: Channel) -> Ending:
    """How the answer ended: by the provider's last word, a cancel, the deadline or a shutdown.

    Raises _Lost when somebody else ended the turn.
    """
    answer = _Answer()
    reading = asyncio.create_task(_read(running, machine, channel, answer))
    beating = asyncio.create_task(_beat(call, running.turn, machine, answer))
    try:
        await asyncio.wait(
            {reading, beating},
            timeout=machine.settings.streaming.deadline_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
    except asyncio.CancelledError:
        # The process stops or, where so configured, the client left: the turn still gets its honest end.
        _uncancel()
    ended, flagged = reading.done(), beating.done()
    for task in (reading, beating):
        task.cancel()
    await asyncio.gather(reading, beating, return_exceptions=True)
    if ended:
        ending = _outcome(reading)
    elif flagged and (problem := beating.exception()) is not None:
        raise problem
    else:
        ending = Ending(TurnState.CANCELLED)
    return _with(answer, ending, running.turn)


async def _read(running: Running, machine: Machine, channel: Channel, answer: _Answer) -> Ending:
    model = running.admission.model
    limits = {
        "web_search": machine.settings.quota.web_search_max_calls_per_message,
        "code_interpreter": machine.settings.quota.code_interpreter_max_calls_per_message,
    }
    answer.called = True
    async with aclosing(machine.providers.stream(model.provider_id, _prompt(running))) as chunks:
        async for chunk in chunks:
            match chunk:
                case TextDelta(text=text):
                    answer.first_text_at = answer.first_text_at or machine.clock()
                    answer.texts.append(text)
                    await channel.put(Delta(text))
                case ToolActivity(name=name, phase=phase):
                    calls = answer.tool_calls[name] = answer.tool_calls.get(name, 0) + (phase == "start")
                    if calls > limits.get(name, calls):
                        return Ending(TurnState.FAILED, f"{name}_calls_exceeded")
                    await channel.put(Tool(phase, name))
                case Completed(usage=usage, response_id=response_id) | Incomplete(usage=usage, response_id=response_id):
                    answer.usage, answer.response_id = usage, response_id
                    return Ending(TurnState.COMPLETED)
                case Failed(code=code, usage=usage, diagnostic=diagnostic, reached=reached):
                    answer.usage, answer.called = usage, reached
                    logger.warning("provider failed", extra={"code": code, "diagnostic": diagnostic})
                    return Ending(TurnState.FAILED, code)
    return Ending(TurnState.FAILED, "provider_error")


async def _beat(call: Call, turn: Turn, machine: Machine, answer: _Answer) -> None:
    """Renews the turn's sign of life until somebody asks it to stop.

    Raises _Lost when the turn is no longer running.
    """
    while True:
        await asyncio.sleep(machine.settings.streaming.progress_interval_seconds)
        now = replace(call, now=machine.clock())
        try:
            progress = await asyncio.to_thread(turns.progress, now, turn, provider_called=answer.called)
        except ServiceUnavailable:
            continue  # the next beat tries again; the watchdog's patience is many beats long
        if progress is None:
            raise _Lost
        if progress.cancel_requested:
            return


async def _finalize(call: Call, running: Running, ending: Ending, machine: Machine) -> StreamEvent | None:
    """The terminal event of the end that was stored; None when another finalizer had won."""
    turn = running.turn
    if ending.error_code is not None and ending.error_code not in KNOWN_ERROR_CODES:
        logger.critical("unknown error code", extra={"code": ending.error_code, "turn_id": turn.turn_id})
    for pause in (*FINALIZE_PAUSES_SECONDS, None):
        try:
            now = replace(call, now=machine.clock())
            stored = await asyncio.to_thread(finalize, now, turn, ending, machine.settings)
        except ServiceUnavailable:
            if pause is not None:
                await asyncio.sleep(pause)
            continue
        if stored is None:
            return None
        if stored.state is TurnState.COMPLETED:
            return replace(
                _done(turn, stored.usage), quota_warnings=await _warnings(now, running.limits, machine.settings)
            )
        return error(stored.error_code or "cancelled")
    logger.critical("a turn's end could not be stored", extra={"turn_id": turn.turn_id})
    return error("internal_error")


async def _warnings(call: Call, limits: UserLimits, settings: Settings) -> tuple[Remaining, ...] | None:
    """What is left to the user after this turn; None when that cannot be read now: no answer waits for it."""
    try:
        standing = await asyncio.to_thread(quota.read, call.caller.tenant_id, call.caller.user_id, limits, call.now)
    except ServiceUnavailable:
        return None
    return tuple(remaining(standing, settings.quota.warning_threshold_pct, call.now))


def _outcome(reading: asyncio.Task[Ending]) -> Ending:
    problem = reading.exception()
    if problem is None:
        return reading.result()
    logger.error("an answer broke off", exc_info=problem)
    return Ending(TurnState.FAILED, "internal_error")


def _with(answer: _Answer, ending: Ending, turn: Turn) -> Ending:
    ttft = answer.first_text_at - turn.started_at if answer.first_text_at else None
    return replace(
        ending,
        text="".join(answer.texts),
        usage=answer.usage,
        provider_called=answer.called,
        provider_response_id=answer.response_id,
        tool_calls=ToolCalls(**answer.tool_calls),
        ttft_ms=int(ttft.total_seconds() * 1000) if ttft else None,
    )


def _prompt(running: Running) -> Prompt:
    model, assembly = running.admission.model, running.admission.assembly
    history = [PromptMessage("user" if m.role == "user" else "assistant", m.content) for m in assembly.history]
    return Prompt(
        model=model.provider_model_id,
        instructions=assembly.instructions,
        messages=(*(m for m in history if m.text), PromptMessage("user", running.content)),
        max_output_tokens=running.turn.reserve.max_output_tokens,
        max_tool_calls=model.max_tool_calls if running.admission.web_search else None,
        web_search_context_size=model.web_search_context_size if running.admission.web_search else None,
        api_params=model.general_config.api_params.model_dump(exclude_none=True, exclude_defaults=True),
    )


def _done(turn: Turn, usage: Usage) -> Done:
    reserve = turn.reserve
    return Done(usage, reserve.effective_model, reserve.selected_model, reserve.decision, reserve.downgrade_reason)


def _uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
