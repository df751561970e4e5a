"""The outermost layer of every request: ids, timings, the one log line, metrics, and the handler of last resort.

It is plain ASGI: a stream passes through unchanged, chunk by chunk.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minichat import trace_context, tracing
from minichat.domain.errors import ServiceUnavailable
from minichat.http import problems, server_timing
from minichat.http.public_path import note_prefix
from minichat.http.request_body import RequestBody
from minichat.observability import WideEvent, begin, emit, logger
from minichat.settings import function_name

ANSWER_SECONDS = 2
"""Seconds before an invocation's end at which it answers, finished or not: afterwards it cannot."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Edge:
    """Wraps an app: `X-Request-Id`, `X-Trace-Id` and `Server-Timing` on every response, and no exception past it."""

    def __init__(self, app: ASGIApp, metrics_namespace: str, served_at: str = "", openai_at: str = "") -> None:
        self._app = app
        self._served_at, self._openai_at = served_at, openai_at
        self._metrics_namespace = metrics_namespace
        self._is_cold = True

    def _process(self) -> dict[str, object]:
        """Which function this is, and whether it had to be started for this request."""
        cold, self._is_cold = self._is_cold, False
        return {"function": function_name(), "cold_start": cold}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        event = begin()
        started_at = time.perf_counter()
        request_id = _given(request.headers.get("x-request-id"), _REQUEST_ID) or secrets.token_hex(16)
        trace_id = trace_context.trace_id(request.headers.get("traceparent"))
        scope.setdefault("state", {})["trace_id"] = trace_id
        is_openai = bool(self._openai_at) and f"{self._openai_at}/" in scope["path"]
        note_prefix(request, self._openai_at if is_openai else self._served_at)
        scope["state"]["speaks_openai"] = is_openai and scope["path"].startswith(f"{self._openai_at}/")
        _note_invocation(scope, event)
        event.fields |= {"method": scope["method"], "path": scope["path"], "trace_id": trace_id, **self._process()}
        sent: list[int] = []
        body = RequestBody(request.headers, receive)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent.append(message["status"])
                headers = MutableHeaders(scope=message)
                headers["x-request-id"], headers["x-trace-id"] = request_id, trace_id
                headers["x-content-type-options"] = "nosniff"
                # A response is for its caller alone, and soon out of date.
                headers.setdefault("cache-control", "no-store")
                headers["server-timing"] = server_timing.value(event, started_at)
            await body.read_before_the_end(message, sent[0], send)

        async def send_in_time(message: Message) -> None:
            if not given_up:
                await send_marked(message)

        given_up = False
        try:
            given_up = await _is_late(self._app(scope, body.receive, send_in_time), _seconds_left(scope), sent)
            if given_up:
                event.fields["cause"] = "the invocation's time"
                await problems.of_error(request, ServiceUnavailable())(scope, receive, send_marked)
        except Exception:
            # The app has sent a problem document, or its stream broke: either way the failure ends here.
            logger.exception("request failed", extra={"trace_id": trace_id})
            if not sent:
                await problems.of_failure(request)(scope, receive, send_marked)
        finally:
            event.fields |= {f"{name}_ms": round(spent, 2) for name, spent in event.spans.items()}
            total = round((time.perf_counter() - started_at) * 1000, 2)
            logger.info("request", extra={**event.fields, "status": sent[0] if sent else None, "total_ms": total})
            emit(self._metrics_namespace)


def _note_invocation(scope: Scope, event: WideEvent) -> None:
    """Copies the invocation's end, by Lambda's own clock, from the buffered function's context into the state, where
    the streaming function already has it. Notes which invocation it is, if there is one."""
    state = scope["state"]
    if (context := scope.get("aws.context")) is not None:
        state["deadline_ms"] = time.time() * 1000 + context.get_remaining_time_in_millis()
        state["aws_request_id"] = context.aws_request_id
    if "aws_request_id" in state:
        event.fields["aws_request_id"] = state["aws_request_id"]
    if "trace_header" in state:
        # Powertools puts the one of the environment onto each line, as `xray_trace_id`; of several there is none.
        event.traced = tracing.sampled(state["trace_header"])
        event.fields["amzn_trace_id"] = state["trace_header"].split(";")[0].removeprefix("Root=")


def _seconds_left(scope: Scope) -> float | None:
    """Seconds until the invocation must be answered; None for a server on one machine."""
    deadline_ms = scope["state"].get("deadline_ms")
    return None if deadline_ms is None else max(deadline_ms / 1000 - time.time() - ANSWER_SECONDS, 0)


async def _is_late(answering: Awaitable[None], seconds: float | None, sent: list[int]) -> bool:
    """Whether no response began within that many seconds. The work then goes on, and its result is dropped.

    Raises whatever `answering` raises.
    """
    if seconds is None:
        await answering
        return False
    task = asyncio.ensure_future(answering)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.done() or sent:
        await task
        return False
    _late.add(task)
    task.add_done_callback(_forget_late)
    return True


_late: set[asyncio.Future[None]] = set()


def _forget_late(task: asyncio.Future[None]) -> None:
    _late.discard(task)
    if not task.cancelled() and (problem := task.exception()) is not None:
        logger.error("a request that was given up failed", exc_info=problem)


def _given(value: str | None, shape: re.Pattern[str]) -> str | None:
    return value if value is not None and shape.fullmatch(value) else None
