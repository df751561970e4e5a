"""Amazon Bedrock's ConverseStream: requests signed by the role, answers in AWS's event-stream encoding.

botocore signs and decodes but does not send: its client would need a thread for each answer.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, Iterator
from functools import cache
from typing import Any

import httpx2
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from minichat.domain.answer_end import FILTERED, LENGTH, REFUSED_BY_FILTER
from minichat.domain.usage import Usage
from minichat.provider_entries import Provider
from minichat.providers import refusals
from minichat.providers.chunks import ProviderChunk, TextDelta, ToolActivity
from minichat.providers.citations import Block, cited, listed
from minichat.providers.finish_reasons import NOT_OFFERED, Ends
from minichat.providers.json_fields import UNREADABLE, Characters, at, document, usage_of, with_cache_in_input
from minichat.providers.prompt import Prompt, alternating, one_of_temperature_and_top_p, parameters
from minichat.providers.reading import Reading, Said
from minichat.providers.sse import MAX_EVENT_BYTES, EventTooLarge
from minichat.providers.transport import Exchange, NotAsked

CONTENT_TYPE = "application/vnd.amazon.eventstream"
WEB_SEARCH_TOOL = "nova_grounding"
"""Bedrock's only search of the web; Amazon's Nova models have it."""

_NAMES = {"temperature": "temperature", "top_p": "topP"}
KNOWN_EVENTS = frozenset(
    {"contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "error"}
)
ENDS = Ends(
    good=frozenset({"end_turn", "stop_sequence"}),
    cut={
        "max_tokens": LENGTH,
        "model_context_window_exceeded": LENGTH,
        "content_filtered": FILTERED,
        # The text is what the guardrail says in the model's place.
        "guardrail_intervened": REFUSED_BY_FILTER,
    },
    failed={
        "tool_use": NOT_OFFERED,
        "malformed_model_output": "the model's output cannot be read",
        "malformed_tool_use": "the model's output cannot be read",
    },
)


class BrokenFrame(ValueError):
    """The bytes are not a frame of the event-stream encoding."""


def exchange(entry: Provider, prompt: Prompt) -> Exchange:
    """The call for a prompt: signed by the role, unless the entry has a key (a Bedrock API key)."""
    auth = None if entry.auth else Signature(entry.region or "")
    return Exchange(prompt.model, body(prompt), reader(), content_type=CONTENT_TYPE, auth=auth)


def reader() -> Reading:
    """Reads one answer."""
    return Reading(Frames(), BedrockAnswer())


def body(prompt: Prompt) -> dict[str, Any]:
    """The request of a prompt; the model is in its path. Penalties and `user` have no counterpart and are left out.

    `extra_body` may set or replace anything except what this backend is responsible for: conversation and output cap.
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
            {"role": stretch.role, "content": [{"text": text} for text in stretch.texts]}
            for stretch in alternating(prompt.messages)
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
        # Credentials may come from a file or an address: looking them up blocks.
        credentials = await asyncio.to_thread(_frozen)
        headers = {"content-type": request.headers["content-type"]}
        signed = AWSRequest(method=request.method, url=str(request.url), data=request.content, headers=headers)
        SigV4Auth(credentials, "bedrock", self._region).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request


class Frames:
    """Messages of the event-stream encoding (`reading.Wire`); exceptions and errors are events of the kind error."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()
        self._pending = 0

    def feed(self, part: bytes) -> Iterator[Said]:
        """The events that these bytes complete. Raises EventTooLarge, and BrokenFrame for bytes that are no frame."""
        self._pending += len(part)
        self._buffer.add_data(part)
        for headers, payload in self._whole_frames():
            if headers.get(":message-type") != "event":
                yield Said("error", _problem(headers, payload))
            elif payload.strip():
                kind, data = str(headers.get(":event-type")), _read(payload)
                if data is not None or kind in KNOWN_EVENTS:
                    yield Said(kind, data)
        if self._pending > MAX_EVENT_BYTES:
            raise EventTooLarge(f"more than {MAX_EVENT_BYTES} bytes")

    def _whole_frames(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        while True:
            try:
                frame: Any = self._buffer.next()  # the type stubs declare everything a number
            except StopIteration:
                return
            # Besides its own errors, botocore's parser lets struct and look-up errors through.
            except (ParserError, *UNREADABLE, struct.error) as error:
                raise BrokenFrame(type(error).__name__) from None
            self._pending -= frame.prelude.total_length
            yield frame.headers, frame.payload


class BedrockAnswer:
    """What the events of one answer mean (`reading.Meaning`): its reason comes first, its usage last.

    Input includes the tokens of the cache.
    """

    def __init__(self) -> None:
        self.usage = Usage()
        self._characters = Characters()
        self._block = Block()
        self._reason: str | None = None

    def said(self, kind: str, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        """What an event says."""
        match kind:
            case "contentBlockStart":
                yield from _tool(data)
            case "contentBlockDelta":
                yield from self._delta(data["delta"])
            case "contentBlockStop":
                self._block.end()
            case "messageStop":
                self._reason = str(data["stopReason"])
            case "metadata":
                self.usage = _usage(data)
                yield from self.ended()
            case "error":
                yield refusals.failed(data, self.usage)

    def whole(self, data: dict[str, Any]) -> Iterator[ProviderChunk]:
        """What an answer says that is not streamed."""
        for block in listed(at(data, "output", "message", "content")):
            yield from _tool({"start": block})
            within = block.get("citationsContent") or {"content": [block]}
            for part in listed(within.get("content")):
                yield from self._delta({"text": part.get("text")})
            for citation in listed(within.get("citations")):
                self._cites(citation)
            self._block.end()
        self._reason = data.get("stopReason")
        self.usage = _usage(data)
        if self._reason is None and data.get("message"):
            yield refusals.failed(data, self.usage)
            return
        yield from self.ended()

    def ended(self) -> Iterator[ProviderChunk]:
        """An answer with a stop reason is whole. Bedrock gives it no id."""
        yield from self._tell(self._characters.rest())
        yield ENDS.terminal(self._reason, self.usage, citations=self._block.all())

    def _delta(self, delta: dict[str, Any]) -> Iterator[TextDelta]:
        if (text := delta.get("text")) is not None:
            yield from self._tell(self._characters.of(text))
        self._cites(delta.get("citation"))

    def _tell(self, text: str) -> Iterator[TextDelta]:
        if text:
            self._block.text(text)
            yield TextDelta(text)

    def _cites(self, citation: Any) -> None:
        passages = (at(one, "text") for one in listed(at(citation, "sourceContent")))
        told = " ".join(one for one in passages if isinstance(one, str))
        # The other locations are documents, which are never sent.
        page = at(citation, "location", "web", "url")
        self._block.cites(cited("web", page, title=at(citation, "title"), text=told))


def _tool(data: dict[str, Any]) -> Iterator[ToolActivity]:
    if at(data, "start", "toolUse", "name") == WEB_SEARCH_TOOL:
        yield ToolActivity("web_search", "start")
    elif at(data, "start", "toolResult", "type") == f"{WEB_SEARCH_TOOL}_result":
        yield ToolActivity("web_search", "done")


def _read(payload: bytes) -> dict[str, Any] | None:
    try:
        return document(payload)
    except UNREADABLE:
        return None


def _problem(headers: dict[str, Any], payload: bytes) -> dict[str, Any]:
    kind = headers.get(":exception-type") or headers.get(":error-code")
    return {"type": kind, "message": at(_read(payload), "message") or headers.get(":error-message")}


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
