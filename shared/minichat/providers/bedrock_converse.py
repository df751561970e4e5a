"""Amazon Bedrock's ConverseStream: frames of AWS's event-stream encoding, asked for with the role's signature.

Signing and decoding are botocore's, sending is not: its client would need a thread for each answer.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from minichat.domain.usage import Usage
from minichat.provider_entries import Provider
from minichat.providers.chunks import Completed, Failed, FailureCode, Incomplete, ProviderChunk, TextDelta, ToolActivity
from minichat.providers.cited import Block, cited, listed
from minichat.providers.fields import UNREADABLE, at, document, usage_of, whole_characters, with_cache_in_input
from minichat.providers.prompt import Prompt, alternating, one_of_temperature_and_top_p, parameters
from minichat.providers.sse import MAX_EVENT_BYTES, EventTooLarge
from minichat.providers.transport import Exchange, NotAsked

CONTENT_TYPE = "application/vnd.amazon.eventstream"
WEB_SEARCH_TOOL = "nova_grounding"
"""Bedrock's only search of the web; Amazon's Nova models have it."""

_NAMES = {"temperature": "temperature", "top_p": "topP"}
_CUT = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}
_BROKEN = frozenset({"malformed_model_output", "malformed_tool_use"})
_FAILURES: dict[str, FailureCode] = {
    "throttlingException": "rate_limited",
    "modelTimeoutException": "provider_timeout",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the event-stream encoding."""

    headers: dict[str, Any]
    payload: bytes


class BrokenFrame(ValueError):
    """The bytes are not a frame of the event-stream encoding."""


def exchange(entry: Provider, prompt: Prompt) -> Exchange:
    """The call for a prompt: signed for by the role, unless the entry has a key (an API key of Bedrock's)."""
    auth = None if entry.auth else Signature(entry.region or "")
    return Exchange(prompt.model, body(prompt), Answer(), content_type=CONTENT_TYPE, auth=auth)


def body(prompt: Prompt) -> dict[str, Any]:
    """The request of a prompt; the model is in its path. Penalties and `user` have no counterpart and are left out.

    `extra_body` may set or replace anything but what this backend answers for: conversation and output cap.
    """
    said, extra = parameters(prompt)
    limits = {_NAMES[name]: value for name, value in one_of_temperature_and_top_p(said).items()}
    if "stop" in said:
        limits["stopSequences"] = list(said["stop"])
    made: dict[str, Any] = {}
    if "reasoning_effort" in said:
        made["outputConfig"] = {"effort": said["reasoning_effort"]}
    if prompt.instructions:
        made["system"] = [{"text": prompt.instructions}]
    if prompt.web_search_context_size is not None and prompt.max_tool_calls != 0:
        made["toolConfig"] = {"tools": [{"systemTool": {"name": WEB_SEARCH_TOOL}}]}
    if prompt.metadata:
        made["requestMetadata"] = prompt.metadata
    return {
        **made,
        **extra,
        "messages": [
            {"role": role, "content": [{"text": text} for text in texts]}
            for role, texts in alternating(prompt.messages)
        ],
        "inferenceConfig": {**limits, **extra.get("inferenceConfig", {}), "maxTokens": prompt.max_output_tokens},
    }


class Signature(httpx2.Auth):
    """AWS Signature Version 4 of the process's role, made anew for each attempt."""

    requires_request_body = True

    def __init__(self, region: str) -> None:
        self._region = region

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """The request with its signature. Raises NotAsked when there are no credentials."""
        # Where they come from a file or an address, looking them up blocks.
        credentials = await asyncio.to_thread(_frozen)
        headers = {"content-type": request.headers["content-type"]}
        signed = AWSRequest(method=request.method, url=str(request.url), data=request.content, headers=headers)
        SigV4Auth(credentials, "bedrock", self._region).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request


class Answer:
    """Reads one answer: its reason comes first, its usage last. Input includes the tokens of the cache."""

    def __init__(self) -> None:
        self.usage = Usage()
        self._frames = EventStreamBuffer()
        self._pending = 0
        self._block = Block()
        self._reason: str | None = None

    def feed(self, part: bytes) -> Iterator[ProviderChunk]:
        """The chunks that these bytes complete. Raises EventTooLarge, and BrokenFrame for bytes that are no frame."""
        self._pending += len(part)
        self._frames.add_data(part)
        for frame in self._whole_frames():
            try:
                yield from self._said(frame)
            except UNREADABLE:
                yield Failed("provider_error", "unreadable event", self.usage)
        if self._pending > MAX_EVENT_BYTES:
            raise EventTooLarge(f"more than {MAX_EVENT_BYTES} bytes")

    def ended(self) -> Completed | Incomplete | Failed:
        """An answer that gave the reason of its end is whole. Bedrock has no id for it."""
        if self._reason is None:
            return Failed("provider_error", "the stream ended without a terminal event", self.usage)
        if self._reason == "tool_use":
            return Failed("provider_error", "the model asked for a tool that it was not offered", self.usage)
        if self._reason in _BROKEN:
            return Failed("provider_error", self._reason, self.usage)
        if self._reason in _CUT:
            return Incomplete(_CUT[self._reason], self.usage, citations=self._block.all())
        return Completed(self.usage, citations=self._block.all())

    def _whole_frames(self) -> Iterator[Frame]:
        while True:
            try:
                frame: Any = self._frames.next()  # its type stubs call everything a number
            except StopIteration:
                return
            # Besides its own errors botocore's parser lets those of struct and of a look-up through.
            except (ParserError, *UNREADABLE, struct.error) as error:
                raise BrokenFrame(type(error).__name__) from None
            self._pending -= frame.prelude.total_length
            yield Frame(frame.headers, frame.payload)

    def _said(self, frame: Frame) -> Iterator[ProviderChunk]:
        if frame.headers.get(":message-type") != "event":
            yield _failed(frame, self.usage)
            return
        match frame.headers.get(":event-type"):
            case "contentBlockStart":
                yield from self._tool(document(frame.payload))
            case "contentBlockDelta":
                yield from self._delta(document(frame.payload)["delta"])
            case "contentBlockStop":
                self._block.end()
            case "messageStop":
                self._reason = str(document(frame.payload)["stopReason"])
            case "metadata":
                self.usage = _usage(document(frame.payload))
                yield self.ended()

    def _delta(self, delta: dict[str, Any]) -> Iterator[TextDelta]:
        if (found := delta.get("text")) is not None:
            text = whole_characters(found)
            self._block.text(text)
            yield TextDelta(text)
        citation = delta.get("citation")
        passages = (at(one, "text") for one in listed(at(citation, "sourceContent")))
        told = " ".join(one for one in passages if isinstance(one, str))
        # Documents, the other locations, are never sent along.
        page = at(citation, "location", "web", "url")
        self._block.cites(cited("web", page, title=at(citation, "title"), text=told))

    def _tool(self, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        if at(data, "start", "toolUse", "name") == WEB_SEARCH_TOOL:
            yield ToolActivity("web_search", "start")
        elif at(data, "start", "toolResult", "type") == f"{WEB_SEARCH_TOOL}_result":
            yield ToolActivity("web_search", "done")


@cache
def _credentials() -> Credentials:
    found = Session().get_credentials()
    if found is None:
        raise NotAsked("there are no AWS credentials")
    return found


def _frozen() -> ReadOnlyCredentials:
    try:
        return _credentials().get_frozen_credentials()
    except BotoCoreError as error:
        raise NotAsked(f"no AWS credentials: {type(error).__name__}") from None


def _failed(frame: Frame, usage: Usage) -> Failed:
    headers = frame.headers
    kind = str(headers.get(":exception-type") or headers.get(":error-code") or "")
    try:
        message = document(frame.payload).get("message") or ""
    except UNREADABLE:
        message = headers.get(":error-message") or ""
    return Failed(_FAILURES.get(kind, "provider_error"), f"{kind}: {message}", usage)


def _usage(data: dict[str, Any]) -> Usage:
    return with_cache_in_input(
        usage_of(
            data,
            input_tokens=("usage", "inputTokens"),
            output_tokens=("usage", "outputTokens"),
            cache_read_input_tokens=("usage", "cacheReadInputTokens"),
            cache_write_input_tokens=("usage", "cacheWriteInputTokens"),
        )
    )
