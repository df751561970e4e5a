"""OpenAI's Responses API: one request, a stream of events, told in the product's words.

The status decides first, the body second: 429 is `rate_limited`, 408, 504 and every time-out `provider_timeout`, all
else `provider_error`. Before the first byte of the stream a refusal that may pass (429, 5xx, no connection) is tried
again within the first byte's time; after it, never: text may already have been sent on.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx2

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
MAX_ERROR_BODY_BYTES = 16_384

_TIMEOUT_STATUSES = frozenset({408, 504})
_TOOL_EVENTS = {
    "response.file_search_call.searching": ToolActivity("file_search", "start"),
    "response.file_search_call.completed": ToolActivity("file_search", "done"),
    "response.web_search_call.searching": ToolActivity("web_search", "start"),
    "response.web_search_call.completed": ToolActivity("web_search", "done"),
    "response.code_interpreter_call.in_progress": ToolActivity("code_interpreter", "start"),
    "response.code_interpreter_call.completed": ToolActivity("code_interpreter", "done"),
}


class _Refused(Exception):
    """The provider answered with something other than a stream."""

    def __init__(self, failed: Failed, *, may_pass: bool, retry_after: float | None = None) -> None:
        self.failed = failed
        self.may_pass = may_pass
        self.retry_after = retry_after
        super().__init__(failed.code)


def body(prompt: Prompt) -> dict[str, Any]:
    """The request of a prompt. Nothing is stored at the provider."""
    params = dict(prompt.api_params)
    extra = params.pop("extra_body", {})
    effort = params.pop("reasoning_effort", None)
    made: dict[str, Any] = {
        "model": prompt.model,
        "stream": True,
        "store": False,
        "input": [_item(message.role, message.text) for message in prompt.messages],
        "max_output_tokens": prompt.max_output_tokens,
        **params,
    }
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
    made.update(extra)
    return made


def chunk_of(event: WireEvent) -> ProviderChunk | None:
    """What an event says, or None when it says nothing to us.

    An event that cannot be read is a failure: it may have been text, or the end.
    """
    try:
        data = json.loads(event.data)
        name = event.name or data.get("type", "")
        if name == "response.output_text.delta":
            return TextDelta(_whole_characters(data["delta"]))
        return _TOOL_EVENTS.get(name) or _terminal(name, data)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Failed("provider_error", f"unreadable event {redact_diagnostic(event.name)}")


def _terminal(name: str, data: dict[str, Any]) -> Completed | Incomplete | Failed | None:
    match name:
        case "response.completed":
            return Completed(_usage(data["response"]), data["response"].get("id"))
        case "response.incomplete":
            response = data["response"]
            reason = (response.get("incomplete_details") or {}).get("reason") or "unknown"
            return Incomplete(reason, _usage(response), response.get("id"))
        case "response.failed" | "error":
            return _failed(data)
    return None


async def stream(
    client: httpx2.AsyncClient, entry: Provider, key: str | None, prompt: Prompt
) -> AsyncGenerator[ProviderChunk, None]:
    """The provider's answer, ending with exactly one terminal chunk; closing the iterator closes the connection.

    Trouble of the provider never raises: it is the terminal chunk `Failed`.
    """
    deadline = time.monotonic() + entry.timeouts.total_seconds
    first_byte_by = time.monotonic() + entry.timeouts.first_byte_seconds
    for attempt in range(entry.retries + 1):
        try:
            async for chunk in _attempt(client, entry, key, prompt, deadline):
                yield chunk
                if isinstance(chunk, Completed | Incomplete | Failed):
                    return
        except _Refused as refused:
            pause = refused.retry_after or FIRST_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1)  # noqa: S311  jitter
            if not refused.may_pass or attempt == entry.retries or time.monotonic() + pause > first_byte_by:
                yield refused.failed
                return
            await asyncio.sleep(pause)


async def _attempt(
    client: httpx2.AsyncClient, entry: Provider, key: str | None, prompt: Prompt, deadline: float
) -> AsyncGenerator[ProviderChunk, None]:
    """One request. Raises _Refused until the stream has begun; afterwards every trouble is a terminal chunk."""
    headers = {"accept": "text/event-stream"}
    if entry.auth is not None and key is not None:
        headers[entry.auth.header] = entry.auth.prefix + key
    times = entry.timeouts
    # httpx2 measures `read` between two reads: the first one waits for the first byte, the others are idle time.
    timeout = httpx2.Timeout(times.first_byte_seconds, connect=times.connect_seconds)
    request = client.build_request(
        "POST", entry.base_url.rstrip("/") + entry.api_path, json=body(prompt), headers=headers, timeout=timeout
    )
    try:
        response = await client.send(request, stream=True)
    except httpx2.HTTPError as error:
        timed_out = isinstance(error, httpx2.TimeoutException)
        code: FailureCode = "provider_timeout" if timed_out else "provider_error"
        failed = Failed(code, redact_diagnostic(repr(error)))
        raise _Refused(failed, may_pass=isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)) from None
    try:
        await _check(response)
        async for chunk in _events(
            response, idle=times.idle_seconds, first=times.first_byte_seconds, deadline=deadline
        ):
            yield chunk
    finally:
        await response.aclose()


async def _check(response: httpx2.Response) -> None:
    """Raises _Refused unless the answer is an event stream."""
    status = response.status_code
    is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
    if status == 200 and is_stream:
        return
    code: FailureCode = "provider_error"
    if status == 429:
        code = "rate_limited"
    elif status in _TIMEOUT_STATUSES:
        code = "provider_timeout"
    diagnostic = f"status {status}: {redact_diagnostic(await _error_text(response))}"
    retry_after = response.headers.get("retry-after", "")
    raise _Refused(
        Failed(code, diagnostic),
        may_pass=status == 429 or status >= 500,
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )


async def _error_text(response: httpx2.Response) -> str:
    found = b""
    try:
        async for part in response.aiter_raw():
            found += part
            if len(found) > MAX_ERROR_BODY_BYTES:
                break
    except httpx2.HTTPError:
        pass  # the status has already said what matters
    return found.decode(errors="replace")


async def _events(
    response: httpx2.Response, *, idle: float, first: float, deadline: float
) -> AsyncGenerator[ProviderChunk, None]:
    parser = EventParser()
    parts = response.aiter_raw()
    wait = first
    try:
        while True:
            async with asyncio.timeout(min(wait, max(deadline - time.monotonic(), 0))):
                part = await anext(parts, None)
            if part is None:
                break
            wait = idle
            for event in parser.feed(part):
                chunk = chunk_of(event)
                if chunk is not None:
                    yield chunk
                if isinstance(chunk, Completed | Incomplete | Failed):
                    return
    except (TimeoutError, httpx2.TimeoutException):
        yield Failed("provider_timeout", "the stream fell silent")
    except (httpx2.HTTPError, EventTooLarge, UnicodeDecodeError) as error:
        yield Failed("provider_error", redact_diagnostic(repr(error)))
    else:
        yield Failed("provider_error", "the stream ended without a terminal event")


def _item(role: str, text: str) -> dict[str, Any]:
    kind = "input_text" if role == "user" else "output_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _failed(data: dict[str, Any]) -> Failed:
    """The failure of `response.failed` and `error` in each of the shapes that providers send."""
    response = data.get("response") or {}
    problem = response.get("error") or data.get("error") or data
    code, message = problem.get("code") or "", problem.get("message") or ""
    failure: FailureCode = "rate_limited" if code == "rate_limit_exceeded" else "provider_error"
    return Failed(failure, redact_diagnostic(f"{code}: {message}"), _usage(response))


def _usage(response: dict[str, Any]) -> Usage:
    usage = response.get("usage") or {}
    return Usage(
        input_tokens=usage.get("input_tokens") or 0,
        output_tokens=usage.get("output_tokens") or 0,
        cache_read_input_tokens=(usage.get("input_tokens_details") or {}).get("cached_tokens") or 0,
        reasoning_tokens=(usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def _whole_characters(text: str) -> str:
    """The text with surrogate pairs joined and lone halves replaced: JSON can carry them, UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
