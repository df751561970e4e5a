"""OpenAI's Responses API: one request, a stream of events, told in the product's words.

The status decides first, the body second: 429 is `rate_limited`, 408, 504 and every time-out `provider_timeout`, all
else `provider_error`. Before the first byte of the stream a refusal that may pass (429, 5xx, no connection) is tried
again within the first byte's time; after it, never: text may already have been sent on.
"""

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx2

from minichat.domain.policy import MAX_TOKENS
from minichat.domain.usage import Usage
from minichat.providers.chunks import (
    Completed,
    Failed,
    FailureCode,
    Incomplete,
    ProviderChunk,
    TextDelta,
    ToolActivity,
)
from minichat.providers.diagnostics import redact_diagnostic
from minichat.providers.prompt import Prompt
from minichat.providers.sse import EventParser, EventTooLarge, WireEvent
from minichat.settings import Provider

FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 5.0
"""A user waits: who asks for more patience than this (Retry-After) is not asked again."""
MAX_ERROR_BODY_BYTES = 16_384
ERROR_BODY_SECONDS = 2.0

_TIMEOUT_STATUSES = frozenset({408, 504})
_TOOL_EVENTS = {
    "response.file_search_call.searching": ToolActivity("file_search", "start"),
    "response.file_search_call.completed": ToolActivity("file_search", "done"),
    "response.web_search_call.searching": ToolActivity("web_search", "start"),
    "response.web_search_call.completed": ToolActivity("web_search", "done"),
    "response.code_interpreter_call.in_progress": ToolActivity("code_interpreter", "start"),
    "response.code_interpreter_call.completed": ToolActivity("code_interpreter", "done"),
}
_KNOWN_EVENTS = _TOOL_EVENTS.keys() | {
    "response.output_text.delta",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
}
_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class _Refused(Exception):
    """The provider answered with something other than a stream."""

    def __init__(self, failed: Failed, *, may_pass: bool, retry_after: float = 0) -> None:
        self.failed = failed
        self.may_pass = may_pass
        self.retry_after = retry_after
        super().__init__(failed.code)


def body(prompt: Prompt) -> dict[str, Any]:
    """The request of a prompt. Nothing is stored at the provider.

    `extra_body` may set or replace anything but what this backend answers for: model, conversation, output cap (the
    reserve is computed from it), and that the answer is streamed and not stored.
    """
    params = {name: value for name, value in prompt.api_params.items() if value not in (None, [])}
    extra = params.pop("extra_body", {})
    effort = params.pop("reasoning_effort", None)
    made: dict[str, Any] = params
    if prompt.instructions:
        made["instructions"] = prompt.instructions
    if prompt.web_search_context_size is not None:
        made["tools"] = [{"type": "web_search", "search_context_size": prompt.web_search_context_size}]
    if prompt.max_tool_calls is not None:
        made["max_tool_calls"] = prompt.max_tool_calls
    if effort is not None:
        made["reasoning"] = {"effort": effort}
    if prompt.user is not None:
        made["user"] = prompt.user
    if prompt.metadata:
        made["metadata"] = prompt.metadata
    return {
        **made,
        **extra,
        "model": prompt.model,
        "stream": True,
        "store": False,
        "input": [_item(message.role, message.text) for message in prompt.messages],
        "max_output_tokens": prompt.max_output_tokens,
    }


def chunk_of(event: WireEvent) -> ProviderChunk | None:
    """What an event says, or None when it says nothing to us.

    One of ours that cannot be read is a failure: it may have been text, or the end.
    """
    if event.name and event.name not in _KNOWN_EVENTS:
        return None
    try:
        data = json.loads(event.data)
        name = event.name or data.get("type", "")
        if name == "response.output_text.delta":
            return TextDelta(_whole_characters(data["delta"]))
        return _TOOL_EVENTS.get(name) or _terminal(name, data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Failed("provider_error", f"unreadable event {event.name}")


def _terminal(name: str, data: dict[str, Any]) -> Completed | Incomplete | Failed | None:
    match name:
        case "response.completed":
            return Completed(_usage(data["response"]), _id(data["response"]))
        case "response.incomplete":
            response = data["response"]
            reason = (response.get("incomplete_details") or {}).get("reason") or "unknown"
            return Incomplete(str(reason), _usage(response), _id(response))
        case "response.failed" | "error":
            return _failed(data)
    return None


async def stream(
    client: httpx2.AsyncClient, entry: Provider, key: str | None, prompt: Prompt
) -> AsyncGenerator[ProviderChunk, None]:
    """The provider's answer, ending with exactly one terminal chunk; closing the generator closes the connection.

    Trouble of the provider never raises: it is the terminal chunk `Failed`.
    """
    times, now = entry.timeouts, asyncio.get_running_loop().time()
    total_by = now + times.total_seconds
    first_byte_by = min(now + times.first_byte_seconds, total_by)
    try:
        response = await _opened(client, entry, _request(client, entry, key, prompt), first_byte_by)
    except _Refused as refused:
        yield refused.failed
        return
    try:
        async with aclosing(_chunks(response, times.idle_seconds, first_byte_by, total_by)) as chunks:
            async for chunk in chunks:
                yield chunk
    finally:
        await response.aclose()


def _request(client: httpx2.AsyncClient, entry: Provider, key: str | None, prompt: Prompt) -> httpx2.Request:
    # Compressed events would come in blocks, late.
    headers = {"accept": "text/event-stream", "accept-encoding": "identity"}
    if entry.auth is not None and key is not None:
        headers[entry.auth.header] = entry.auth.prefix + key
    # Reading has deadlines of its own: httpx2's would begin anew with each part.
    timeout = httpx2.Timeout(None, connect=entry.timeouts.connect_seconds, pool=entry.timeouts.connect_seconds)
    url = entry.base_url.rstrip("/") + entry.api_path
    try:
        return client.build_request("POST", url, json=body(prompt), headers=headers, timeout=timeout)
    except (httpx2.InvalidURL, ValueError) as error:
        failed = Failed("provider_error", f"no request can be made: {type(error).__name__}", reached=False)
        raise _Refused(failed, may_pass=False) from None


async def _opened(client: httpx2.AsyncClient, entry: Provider, request: httpx2.Request, by: float) -> httpx2.Response:
    """The response whose body is the stream; what may pass is tried again while the first byte's time lasts."""
    reached, attempt = False, 0
    while True:
        try:
            return await _attempt(client, request, by)
        except _Refused as refused:
            reached = reached or refused.failed.reached
            pause = FIRST_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1)  # noqa: S311  jitter
            pause += refused.retry_after
            too_long = pause > MAX_PAUSE_SECONDS or asyncio.get_running_loop().time() + pause >= by
            if not refused.may_pass or attempt >= entry.retries or too_long:
                raise _Refused(replace(refused.failed, reached=reached), may_pass=False) from None
        await asyncio.sleep(pause)
        attempt += 1


async def _attempt(client: httpx2.AsyncClient, request: httpx2.Request, by: float) -> httpx2.Response:
    """The response to one request, if it is an event stream. Raises _Refused."""
    try:
        async with asyncio.timeout_at(by):
            response = await client.send(request, stream=True)
    except TimeoutError:
        raise _Refused(Failed("provider_timeout", "no answer in time"), may_pass=False) from None
    except httpx2.HTTPError as error:
        timed_out = isinstance(error, httpx2.TimeoutException)
        connected = not isinstance(error, _NOT_CONNECTED)
        code: FailureCode = "provider_timeout" if timed_out else "provider_error"
        failed = Failed(code, redact_diagnostic(repr(error)), reached=connected)
        raise _Refused(failed, may_pass=not connected) from None
    content_type = response.headers.get("content-type", "").lower()
    if response.status_code == 200 and content_type.startswith("text/event-stream"):
        return response
    try:
        raise _refusal(response, await _error_text(response))
    finally:
        await response.aclose()


def _refusal(response: httpx2.Response, text: str) -> _Refused:
    status = response.status_code
    code: FailureCode = "provider_error"
    if status == 429:
        code = "rate_limited"
    elif status in _TIMEOUT_STATUSES:
        code = "provider_timeout"
    retry_after = response.headers.get("retry-after", "")
    return _Refused(
        Failed(code, redact_diagnostic(f"status {status}: {text}")),
        may_pass=status == 429 or status >= 500,
        retry_after=float(retry_after) if retry_after.isdecimal() else 0,
    )


async def _error_text(response: httpx2.Response) -> str:
    found = b""
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            async for part in response.aiter_bytes():
                found += part
                if len(found) > MAX_ERROR_BODY_BYTES:
                    break
    except (TimeoutError, httpx2.HTTPError):
        pass  # the status has already said what matters
    return found[:MAX_ERROR_BODY_BYTES].decode(errors="replace")


async def _chunks(
    response: httpx2.Response, idle_seconds: float, first_byte_by: float, total_by: float
) -> AsyncGenerator[ProviderChunk, None]:
    parser, parts, by = EventParser(), response.aiter_bytes(), first_byte_by
    try:
        while True:
            async with asyncio.timeout_at(by):
                part = await anext(parts, None)
            if part is None:
                break
            for event in parser.feed(part):
                chunk = chunk_of(event)
                if chunk is not None:
                    yield chunk
                if isinstance(chunk, Completed | Incomplete | Failed):
                    return
            by = min(asyncio.get_running_loop().time() + idle_seconds, total_by)
    except (TimeoutError, httpx2.TimeoutException):
        yield Failed("provider_timeout", "the stream fell silent, or took too long")
    except (httpx2.HTTPError, EventTooLarge, UnicodeDecodeError) as error:
        yield Failed("provider_error", redact_diagnostic(repr(error)))
    else:
        yield Failed("provider_error", "the stream ended without a terminal event")


def _item(role: str, text: str) -> dict[str, Any]:
    kind = "input_text" if role == "user" else "output_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _failed(data: dict[str, Any]) -> Failed:
    """The failure of `response.failed` and `error` in each of the shapes that providers send; null is empty."""
    response = data.get("response")
    nested = response.get("error") if isinstance(response, dict) else None
    problem = nested or data.get("error") or data
    if not isinstance(problem, dict):
        problem = {"message": problem}
    code, message = problem.get("code") or "", problem.get("message") or ""
    failure: FailureCode = "rate_limited" if code == "rate_limit_exceeded" else "provider_error"
    return Failed(failure, redact_diagnostic(f"{code}: {message}"), _usage(response))


def _usage(response: Any) -> Usage:
    """What the provider counted. Numbers that cannot be tokens make it unknown: nobody pays for them."""
    try:
        return Usage(
            input_tokens=_tokens(response, "usage", "input_tokens"),
            output_tokens=_tokens(response, "usage", "output_tokens"),
            cache_read_input_tokens=_tokens(response, "usage", "input_tokens_details", "cached_tokens"),
            reasoning_tokens=_tokens(response, "usage", "output_tokens_details", "reasoning_tokens"),
        )
    except ValueError:
        return Usage()


def _tokens(found: Any, *path: str) -> int:
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        return 0
    if type(found) is not int or not 0 <= found <= MAX_TOKENS:
        raise ValueError("not a number of tokens")
    return found


def _id(response: dict[str, Any]) -> str | None:
    found = response.get("id")
    return found if isinstance(found, str) else None


def _whole_characters(text: str) -> str:
    """The text with surrogate pairs joined and lone halves replaced: JSON can carry them, UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
