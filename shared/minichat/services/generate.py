"""Makes the answer of a running turn and streams it; exactly one end, stored before it is told.

The answer has a task of its own: a client that leaves does not end it (contract 3, architecture 4).

    begin ── task: _produce ──┬─ reading   provider → text, tools → channel → client
                              ├─ storing   every second: what was told
                              ├─ watching  every second: does somebody want the turn to stop?
                              ├─ renewing  every five seconds, until the end is stored: a sign of life
                              └─ deadline  the time that the function has left
             whichever is over first → finalize (one transaction) → `done` | `error` → closed

Nobody cancels that task. To stop it (the client left, the process stops) one sets an event, any number of times and
however late: nothing between a known answer and its stored end can be interrupted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from minichat import greenlets
from minichat.domain.answer_end import DEADLINE, DECLINED, INTERRUPTED, CompletionSignal, signalled
from minichat.domain.answer_so_far import AnswerSoFar, broken_off, with_answer
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.failure_codes import KNOWN_ERROR_CODES
from minichat.domain.identity import Call, Clock
from minichat.domain.settlement import Ending
from minichat.domain.stream import Delta, Started, StreamEvent, Tool
from minichat.domain.text import is_blank
from minichat.domain.tool_details import told_details
from minichat.domain.turn import Turn, TurnState
from minichat.observability import count, emit, logger, measured, observe
from minichat.providers import identity
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity
from minichat.providers.registry import Providers
from minichat.providers.transport import NobodyAtWork
from minichat.services.answer_metrics import log_answer, measure_answer
from minichat.services.channel import Channel, Numbered
from minichat.services.finalize import End, Ended, Teller
from minichat.services.lease import Lost, asked_to_stop, renew
from minichat.services.new_turn import Replay, RunningTurn
from minichat.services.prompts import prompt_of
from minichat.services.stream_record import Transcript
from minichat.settings import Settings

FINALIZE_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to store an end while the store does not answer; after the last, the watchdog does it."""

CLOSING_SECONDS = 0.5
"""How long the end of a turn waits for the provider's stream to close; closing continues after that."""

Admitting = Coroutine[Any, Any, RunningTurn | Replay]
_answers: dict[asyncio.Task[None], "_Telling"] = {}
_admissions: set[asyncio.Task[Any]] = set()
_closing: set[asyncio.Task[None]] = set()
_own: ContextVar[set[asyncio.Task[Any]] | None] = ContextVar("own", default=None)
"""What the request of the moment has begun, where somebody waits for it."""


@dataclass(frozen=True, slots=True)
class AnswerDeps:
    """What making answers needs from its process."""

    settings: Settings
    providers: Providers
    clock: Clock


@dataclass(frozen=True, slots=True)
class Answering:
    """A turn whose answer is being made, and where it is told."""

    turn: Turn
    channel: Channel


@dataclass(frozen=True, slots=True)
class _Telling:
    """One running turn, what its provider has said, and the record and channel of what was told.

    `over` is set once the answer is over: the provider finished, or somebody wants it to stop.
    """

    call: Call
    running: RunningTurn
    machine: AnswerDeps
    channel: Channel
    over: asyncio.Event = field(default_factory=asyncio.Event)
    record: Transcript = field(default_factory=Transcript)
    answer: AnswerSoFar = field(default_factory=AnswerSoFar)

    async def tell(self, event: StreamEvent) -> None:
        """Numbers the event, so that it will be stored, and hands it to the client."""
        await self.channel.put(self.record.add(event))

    def cut_short(self, cut: CompletionSignal) -> None:
        """Ends an unfinished answer without anybody's request."""
        if not self.over.is_set():
            self.answer.cut = cut
            self.over.set()

    def left(self) -> None:
        """Ends the answer because its client has left."""
        self.answer.unwanted_since = self.machine.clock()
        self.over.set()

    async def watch(self) -> None:
        """Returns once somebody asks the turn to stop. Raises Lost."""
        interval = self.machine.settings.streaming.progress_interval_seconds
        self.answer.unwanted_since = await asked_to_stop(self.running.turn, interval)

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task beside the others; when it ends, the answer is over."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._is_over)
        return task

    def _is_over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved, lest asyncio reports it: the end of the turn may have been known by then
        self.over.set()


async def admitted(admission: Admitting, call: Call, machine: AnswerDeps) -> Answering | Replay:
    """The result of an admission; if it made a turn durable, the answer has begun.

    Both happen in one task of their own: a request cancelled in between, as a stopping server does, leaves no running
    turn behind without an answer. Raises what the admission raises.
    """
    task = asyncio.create_task(_begun(admission, call, machine))
    _admissions.add(task)
    task.add_done_callback(_admissions.discard)
    _is_own(task)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_never_read)
        raise


async def _begun(admission: Admitting, call: Call, machine: AnswerDeps) -> Answering | Replay:
    outcome = await admission
    return outcome if isinstance(outcome, Replay) else Answering(outcome.turn, begin(call, outcome, machine))


def _never_read(task: asyncio.Task[Answering | Replay]) -> None:
    if not task.cancelled() and task.exception() is None and isinstance(outcome := task.result(), Answering):
        outcome.channel.leave()


def begin(call: Call, running: RunningTurn, machine: AnswerDeps) -> Channel:
    """Starts the task that makes the answer, and returns the channel of its events. Call it on the event loop.

    If the invocation's time runs out, the answer is cut short early enough to be settled and stored within it.
    """
    streaming = machine.settings.streaming
    teller = _Telling(call, running, machine, Channel(streaming.channel_capacity))
    task = asyncio.create_task(_produce(teller))
    if streaming.on_disconnect == "cancel":
        teller.channel.on_leave = teller.left
    _answers[task] = teller
    task.add_done_callback(_answers.pop)
    _is_own(task)
    # The client may leave, and its request's middleware with it: nobody else would emit the metrics that follow.
    task.add_done_callback(lambda _: emit(machine.settings.metrics_namespace))
    observe("active_streams", len(_answers), "Count")
    return teller.channel


async def stop_all(seconds: float) -> None:
    """Cuts short every answer of this process, even those that begin meanwhile: for shutdown. Answers that have not
    ended after that time are left to the watchdog."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and (under_way := {*_admissions, *_answers}):
        for teller in _answers.values():
            teller.cut_short(INTERRUPTED)
        await asyncio.wait(under_way, timeout=left, return_when=asyncio.FIRST_COMPLETED)


async def with_answers(serving: Coroutine[Any, Any, Any]) -> None:
    """Serves a request, and returns once the answers that it has begun are over: after that its process may be frozen,
    or end. Where several are served at once, each waits for its own alone. Raises what serving does."""
    own: set[asyncio.Task[Any]] = set()
    before = _own.set(own)
    try:
        await serving
    finally:
        _own.reset(before)
        while own:
            await asyncio.wait(own)


def _is_own(task: asyncio.Task[Any]) -> None:
    if (own := _own.get()) is not None:
        own.add(task)
        task.add_done_callback(own.discard)


async def _produce(teller: _Telling) -> None:
    call, running, machine = teller.call, teller.running, teller.machine
    turn, model = running.turn, running.admission.model
    count("stream_started_total", provider=model.provider_id, model=model.id)
    first_after = machine.settings.streaming.progress_interval_seconds
    renewing = teller.begin(renew(call, turn, machine.clock, lambda: teller.answer.called, first_after))
    try:
        await teller.tell(Started(turn.request_id, turn.assistant_message_id, True, turn.summary_tokens))
        ending = await _answer(teller, renewing)
        # The lease is renewed until the end is stored: storing may outlast the silence allowed to a living turn.
        ended = await _finalize(call, running, ending, machine, teller.record)
        measure_answer(running, ended.ending, teller.answer.unwanted_since, machine.clock())
        log_answer(call, running, ended.ending)
        for number, event in enumerate(ended.last_events, start=ended.number):
            await teller.channel.put(Numbered(number, event))
    except Lost:
        # Another finalizer ended the turn: its status is the truth, and not ours to tell.
        count("cas_lost_total", actor="stream")
    except Exception:  # the edge of a stream: whatever went wrong, the client must not wait for ever
        # No terminal event: as far as anybody knows the turn still runs, and a client that resumes it learns its end.
        logger.exception("a turn could not be ended", extra={"turn_id": turn.turn_id})
    finally:
        renewing.cancel()
        teller.channel.close()


async def _answer(teller: _Telling, renewing: asyncio.Task[None]) -> Ending:
    """How the answer ended: the provider finished, a cancel, the deadline or a shutdown.

    Raises Lost when another finalizer ended the turn.
    """
    answer, turn, machine = teller.answer, teller.running.turn, teller.machine
    streaming = machine.settings.streaming
    reading = teller.begin(_read(teller))
    storing = teller.begin(teller.record.keep_storing(turn, streaming))
    watching = teller.begin(teller.watch())
    with suppress(TimeoutError):
        now = replace(teller.call, now=machine.clock())
        async with asyncio.timeout(now.seconds_left(at_most=streaming.deadline_seconds)):
            await teller.over.wait()
    teller.cut_short(DEADLINE)
    storing.cancel()
    watching.cancel()
    if answer.ending is None:
        reading.cancel()
    # The provider's stream gets a moment to close; no end waits for a connection that will not.
    _closing.add(reading)
    reading.add_done_callback(_closing.discard)
    await asyncio.wait({storing, watching, reading}, timeout=CLOSING_SECONDS)
    for task in (renewing, storing, watching, reading):
        problem = task.exception() if task.done() and not task.cancelled() else None
        if isinstance(problem, Lost):
            raise problem
        if problem is not None:
            logger.error("a task of an answer failed", exc_info=problem)
            answer.ending = answer.ending or Ending(TurnState.FAILED, "internal_error")
    return with_answer(answer.ending or broken_off(answer), answer, teller.running.files, turn.started_at)


async def _read(teller: _Telling) -> None:
    """Tells what the provider says. Its last chunk decides the end, however long the stream takes to close."""
    turn, model = teller.running.turn, teller.running.admission.model
    teller.answer.called = True
    secret = teller.machine.settings.cursor_secret.get_secret_value()
    asker = identity.Asker.of_turn(turn, teller.call.trace_id)
    prompt = identity.told(prompt_of(teller.running), asker, secret)
    try:
        stream = teller.machine.providers.stream(turn.tenant_id, model.provider_id, prompt)
        with measured("provider"):
            async with aclosing(stream) as chunks:
                teller.answer.ending = await _relayed(chunks, teller)
                teller.over.set()
    except NobodyAtWork:
        teller.answer.called = False
        raise


async def _relayed(chunks: AsyncIterator[ProviderChunk], teller: _Telling) -> Ending:
    answer, reserve = teller.answer, teller.running.turn.reserve
    limits = asdict(reserve.day_counts)
    async for chunk in chunks:
        match chunk:
            case TextDelta(text=text):
                answer.first_text_at = answer.first_text_at or teller.machine.clock()
                answer.texts.append(text)
                await teller.tell(Delta(text))
            case ToolActivity(name=name, phase=phase, details=details):
                calls = answer.tool_calls.get(name, 0) + (phase == "start")
                if calls > limits.get(name, calls):
                    return Ending(TurnState.FAILED, f"{name}_calls_exceeded")
                answer.tool_calls[name] = calls
                await teller.tell(Tool(phase, name, told_details(details, teller.running.files)))
            case Completed() | Incomplete():
                answer.usage, answer.response_id, answer.cited = chunk.usage, chunk.response_id, chunk.citations
                cut = None if isinstance(chunk, Completed) else signalled(chunk.signal, answer.text)
                answer.ending = ending = Ending(TurnState.COMPLETED, cut=cut)
                await _excused(ending, teller)
                return ending
            case Failed(code=code, usage=usage, diagnostic=diagnostic, reached=reached, refused=refused):
                answer.usage, answer.called = usage, reached
                logger.warning("provider failed", extra={"code": code, "diagnostic": diagnostic})
                return Ending(TurnState.FAILED, code, refused=refused)
    return Ending(TurnState.FAILED, "provider_error")


async def _excused(ending: Ending, teller: _Telling) -> None:
    """Adds a text to a refusal that has none."""
    if ending.cut is not None and ending.cut.kind == "refusal" and is_blank(teller.answer.text):
        teller.answer.texts.append(DECLINED)
        await teller.tell(Delta(DECLINED))


async def _finalize(call: Call, running: RunningTurn, ending: Ending, machine: AnswerDeps, record: Transcript) -> Ended:
    """The end that was stored.

    Raises Lost when another finalizer had won, and ServiceUnavailable when it could not be stored; the next reader of
    the turn ends it then.
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
                by = Teller(record.stored, told, running.limits, running.compression, running.wants_title)
                now = replace(call, now=machine.clock())
                end = await greenlets.run(End, now, turn, ending, machine.settings, by)
            # The same end again: it may already be stored, with only the answer lost.
            ended = await greenlets.run(end.store)
        except ServiceUnavailable:
            if pause is None:
                raise
            await asyncio.sleep(pause)
        else:
            if ended is None:
                raise Lost
            return ended
    raise AssertionError("unreachable: the last attempt returns or raises")
