"""Serves an ASGI app through the Lambda Runtime API, with response streaming.

The managed Python runtime has no streaming of its own, so this loop takes its place (docs/decisions/0005). One
invocation at a time, or several side by side where Lambda says so (AWS_LAMBDA_MAX_CONCURRENCY, stream_runtime_many):

    GET  /2018-06-01/runtime/invocation/next             an API Gateway REST event
    POST /2018-06-01/runtime/invocation/<id>/response    status and headers as JSON, eight NUL bytes, then the body:
                                                         one HTTP chunk per ASGI message, as the app sends it
    POST /2018-06-01/runtime/invocation/<id>/error       what was no request, or whose response was lost

Every invocation that was taken is answered by one of the two, and whatever the Runtime API refuses is logged. Only the
Runtime API itself ends the process: when it says so (500), or when it gives no invocation however often it is asked.

Nothing is sent before the app has decided status and headers. A failure before that is an ordinary 500; a failure after
it can only be told in the trailers, so apps tell theirs in the stream. The function is never told that a client left:
`receive` blocks after the body, and the answer is written to its end. So it is when the Runtime API stops listening.

Under `sam local` an answer is a whole document, as functions give it that do not stream: its gateway reads no other.
"""

import asyncio
import base64
import importlib
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from typing import Any

import h11
import stream_runtime_many
from stream_runtime_api import (
    REQUEST_ID,
    TRACE_ID,
    Answer,
    Connection,
    Invocations,
    RuntimeApiFailed,
    exchange,
    log,
    raise_if_over,
)
from stream_runtime_request import body_of, event_of, scope_of

ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
STREAM_HEADERS = {
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Transfer-Encoding": "chunked",
    "Content-Type": "application/vnd.awslambda.http-integration-response",
    "Trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
}
END_OF_PRELUDE = b"\0" * 8
# Headers that belong to one connection; the response travels over another.
HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})

TOLD_BYTES, TOLD_CHARACTERS, TOLD_CALLS = 32_768, 400, 50
"""Of an error, of its message, and of its traceback, when the Runtime API is told of it."""

TRAILER_BYTES = 2_700
"""Of an error in the trailers, which become 3,600 as base64: the Runtime API breaks off where all of them have 4 KB."""

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class Response:
    """The answer to one invocation, streamed on a connection of its own.

    When the Runtime API stops listening, what is sent goes nowhere, as when the client has left: the app goes on.
    """

    def __init__(self, host: str, invocation: Answer) -> None:
        self._host = host
        self._path = f"/invocation/{invocation.headers[REQUEST_ID]}"
        # AWS's own clients send it back, so that an answer cannot be taken for another invocation's.
        given = invocation.headers.get("lambda-runtime-invocation-id")
        self._headers = {} if given is None else {"Lambda-Runtime-Invocation-Id": given}
        self._connection: Connection | None = None
        self._answer: asyncio.Task[Answer] | None = None
        self._lost: OSError | None = None
        self._body_sent = False
        self._is_whole = False
        self.started = False
        """Whether the app has decided status and headers."""

    async def send(self, message: Message) -> None:
        """Takes an ASGI message: each is written, and waited for, before the next.

        Raises RuntimeError when it is not this message's turn.
        """
        starts = message["type"] == "http.response.start"
        if self._is_whole:
            raise RuntimeError("the app sent more after its end")
        if starts == self.started:
            raise RuntimeError(f"the app sent {message['type']} {'twice' if starts else 'before its start'}")
        if starts:
            await self._start(message["status"], message.get("headers", ()))
        elif body := bytes(message.get("body", b"")):
            self._body_sent = True
            await self._write(h11.Data(data=body))
        if not starts and self._body_sent and not message.get("more_body", False):
            # Its reader need not wait for what the app does afterwards.
            self._is_whole = True
            await self._write_end()

    async def fail(self, error: BaseException) -> None:
        """Ends the response with what went wrong: as a 500 when nothing was sent yet, in its trailers otherwise.

        Raises RuntimeApiFailed when the Runtime API answers that it is over.
        """
        if self._is_whole:
            await self._end()
        elif self.started:
            told = base64.b64encode(_described(error, TRAILER_BYTES))
            await self._end((ERROR_TYPE.encode(), _kind(error).encode()), (ERROR_BODY.encode(), told))
        else:
            document = {"title": "internal_error", "status": 500, "code": "internal_error", "detail": "Internal error."}
            await self._start(500, [(b"content-type", b"application/problem+json")])
            await self._write(h11.Data(data=json.dumps(document).encode()))
            await self._end()

    async def finish(self) -> None:
        """Ends the response. An empty body would leave the client hanging, so it gets a line end.

        Raises RuntimeApiFailed when the Runtime API answers that it is over.
        """
        if not self._body_sent:
            await self._write(h11.Data(data=b"\n"))
        await self._end()

    async def refuse(self, error: BaseException) -> None:
        """Tells the Runtime API that there will be no response.

        Raises RuntimeApiFailed when the Runtime API answers that it is over.
        """
        headers = self._headers | {
            "Content-Type": "application/vnd.aws.lambda.error+json",
            ERROR_TYPE: f"Runtime.{_kind(error)}",
        }
        try:
            answer = await exchange(self._host, "POST", f"{self._path}/error", headers, _described(error))
        except OSError as lost:
            log(f"the runtime API did not take an error: {lost!r}")
        else:
            _log_refusal("an error", answer)

    async def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        prelude = json.dumps(_prelude(status, headers)).encode() + END_OF_PRELUDE
        self.started = True
        try:
            self._connection = await Connection.to(self._host)
        except OSError as lost:
            self._lost = lost
            return
        self._answer = asyncio.create_task(self._answered(self._connection))
        request = self._connection.request("POST", f"{self._path}/response", self._headers | STREAM_HEADERS)
        await self._write(request, h11.Data(data=prelude))

    async def _answered(self, connection: Connection) -> Answer:
        """The answer, which a refusal does not make wait for the response's end."""
        try:
            return await connection.answer()
        finally:
            # It takes no more: whoever waits to write must not wait for ever.
            connection.abort()

    async def _write(self, *events: h11.Event) -> None:
        if self._connection is None or self._lost is not None:
            return
        try:
            await self._connection.write(*events)
        except OSError as lost:
            self._lost = lost

    async def _write_end(self, *trailers: tuple[bytes, bytes]) -> None:
        await self._write(h11.EndOfMessage(headers=list(trailers)))

    async def _end(self, *trailers: tuple[bytes, bytes]) -> None:
        if not self._is_whole:
            await self._write_end(*trailers)
        try:
            if self._answer is None:
                assert self._lost is not None
                raise self._lost
            answer = await self._answer
        except OSError as lost:
            log(f"a response was lost: {lost!r}")
            await self.refuse(lost)
        else:
            _log_refusal("a response", answer)


class WholeResponse(Response):
    """The answer to one invocation of `sam local`, whose gateway reads no stream: one document, when it has ended."""

    def __init__(self, host: str, invocation: Answer) -> None:
        super().__init__(host, invocation)
        self._document: dict[str, Any] = {}
        self._body = bytearray()

    async def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.started = True
        prelude = _prelude(status, headers)
        cookies = {"set-cookie": prelude["cookies"]}
        self._document = {"statusCode": status, "headers": prelude["headers"], "multiValueHeaders": cookies}

    async def _write(self, *events: h11.Event) -> None:
        for event in events:
            if isinstance(event, h11.Data):
                self._body += event.data

    async def _end(self, *trailers: tuple[bytes, bytes]) -> None:
        document = self._document | {"body": self._body.decode(errors="replace"), "isBase64Encoded": False}
        body = json.dumps(document).encode()
        _log_refusal("a response", await exchange(self._host, "POST", f"{self._path}/response", self._headers, body))


def _prelude(status: int, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    named: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name == "set-cookie":
            cookies.append(value)
        elif name not in HOP_BY_HOP:
            named[name] = f"{named[name]}, {value}" if name in named else value
    return {"statusCode": status, "headers": named, "cookies": cookies}


async def serve(app: AsgiApp, host: str) -> None:
    """Takes invocations until the Runtime API fails, which it raises as RuntimeApiFailed."""
    invocations = Invocations(host)
    while True:
        invocation = await invocations.next()
        _trace(invocation.headers.get(TRACE_ID))
        await _invoke(app, invocation, host)


async def _invoke(app: AsgiApp, invocation: Answer, host: str) -> None:
    # Set by `sam local`.
    response = (WholeResponse if os.environ.get("AWS_SAM_LOCAL") == "true" else Response)(host, invocation)
    try:
        event = event_of(invocation.body)
        deadline_ms = _number(invocation.headers.get("lambda-runtime-deadline-ms"))
        scope = scope_of(event, deadline_ms=deadline_ms, request_id=invocation.headers[REQUEST_ID])
        requests = [{"type": "http.request", "body": body_of(event), "more_body": False}]
    except Exception as error:  # an event of any shape: AWS's own runtime tells what it cannot read in the same way
        log(f"an invocation was no request: {error!r}")
        await response.refuse(error)
        return

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await asyncio.Event().wait()
        raise AssertionError("unreachable: nothing sets the event")

    try:
        await app(scope, receive, response.send)
    except (Exception, asyncio.CancelledError) as error:  # the edge of the process: the invocation must end
        if _is_cancelled():
            raise
        log(traceback.format_exc().rstrip())
        await response.fail(error)
    else:
        await (response.finish() if response.started else response.fail(RuntimeError("the app sent no response")))


def _is_cancelled() -> bool:
    """Whether it is this process that is to stop, and not something of the app's that was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _trace(given: str | None) -> None:
    if given is None:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    else:
        os.environ["_X_AMZN_TRACE_ID"] = given


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _log_refusal(what: str, answer: Answer) -> None:
    if answer.status != 202:
        log(f"the runtime API refused {what}: {answer}")
    raise_if_over(answer)


def _described(error: BaseException, at_most_bytes: int = TOLD_BYTES) -> bytes:
    """What AWS shows of an error, as JSON: of a traceback that is too long the innermost calls."""
    message, trace = str(error)[:TOLD_CHARACTERS], traceback.format_tb(error.__traceback__, -TOLD_CALLS)
    while True:
        told = {"errorType": _kind(error), "errorMessage": message, "stackTrace": trace}
        text = json.dumps(told, ensure_ascii=False).encode(errors="replace")
        if len(text) <= at_most_bytes or not trace:
            return text
        del trace[0]


def _kind(error: BaseException) -> str:
    """The name of the error's class; as a header it must be ASCII, and not long."""
    return type(error).__name__.encode("ascii", "replace").decode()[:100]


async def _restored(host: str) -> None:
    """Tells that initialization is over, and returns in each restored copy of this process (SnapStart)."""
    answer = await exchange(host, "GET", "/restore/next", {})
    if answer.status != 200:
        raise RuntimeApiFailed(f"the runtime API does not restore: {answer}")


async def _tell_init_error(host: str, error: Exception) -> None:
    headers = {ERROR_TYPE: f"Runtime.{_kind(error)}"}
    try:
        _log_refusal("an init error", await exchange(host, "POST", "/init/error", headers, _described(error)))
    except (OSError, RuntimeApiFailed) as lost:
        log(f"the runtime API did not take an init error: {lost!r}")


async def run(handler: str, host: str) -> int:
    """Imports `package.module.app` and serves it.

    Returns 1 when it cannot be imported, after having told Lambda why, and when there are no more invocations; 0 when
    it served several at once, and was asked to stop.
    """
    module, _, name = handler.rpartition(".")
    try:
        app: AsgiApp = getattr(importlib.import_module(module), name)
    except Exception as error:  # the edge of the process: Lambda shows what it is told here
        traceback.print_exc()
        await _tell_init_error(host, error)
        return 1
    try:
        if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
            await _restored(host)
        at_most = _number(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY")) or 1
        if at_most > 1:
            await stream_runtime_many.serve(app, partial(_invoke, host=host), host, at_most)
            return 0
        await serve(app, host)
    except (OSError, RuntimeApiFailed) as error:
        log(str(error))
    return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(run(os.environ["_HANDLER"], os.environ["AWS_LAMBDA_RUNTIME_API"])))
