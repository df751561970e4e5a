"""What the events of each kind of provider mean; the Responses API has a file of its own."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.answer_end import (
    FILTERED,
    LENGTH,
    PAUSED,
    REFUSED,
    REFUSED_BY_FILTER,
    CompletionSignal,
    Kind,
    Reason,
)
from minichat.domain.usage import Usage
from minichat.local.dialects.bedrock import frame
from minichat.providers import anthropic_messages, bedrock_converse, openai_chat, openai_responses
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity
from minichat.providers.transport import Reader


def read(reader: Reader, *parts: bytes, ended: bool = True) -> list[ProviderChunk]:
    """The chunks of these bytes and, unless one was the last, of their end."""
    chunks = [chunk for part in parts for chunk in reader.feed(part)]
    if ended and not (chunks and isinstance(chunks[-1], Completed | Incomplete | Failed)):
        chunks += reader.ended()
    return chunks


def sse(*events: Any, name: str | None = None) -> bytes:
    """These events; an event of type T is named T when asked for with `name` "type"."""
    said = b""
    for event in events:
        named = f"event: {event['type']}\n".encode() if name == "type" else b""
        said += named + b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
    return said


def chat(*events: Any) -> list[ProviderChunk]:
    return read(openai_chat.reader(), sse(*events))


def choice(delta: dict[str, Any] | None = None, reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **said}


USED = {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 5}}


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([choice({}, "stop"), USED, b"[DONE]"], Completed(Usage(12, 5), "chatcmpl-1")),
        ([choice({}, "stop"), USED], Completed(Usage(12, 5), "chatcmpl-1")),
        ([choice({}, "stop"), b"[DONE]"], Completed(Usage(), "chatcmpl-1")),
        ([choice({}, "stop")], Completed(Usage(), "chatcmpl-1")),
        ([choice({}, "stop", usage=USED["usage"])], Completed(Usage(12, 5), "chatcmpl-1")),
        ([choice(None, "eos")], Completed(Usage(), "chatcmpl-1")),
        ([choice({}, "length"), USED], Incomplete(LENGTH, Usage(12, 5), "chatcmpl-1")),
        ([choice({}, "content_filter")], Incomplete(FILTERED, Usage(), "chatcmpl-1")),
    ],
)
def test_a_chat_ends_with_whatever_of_its_end_a_server_sends(events: list[Any], end: ProviderChunk) -> None:
    assert chat(choice({"role": "assistant", "content": ""}), choice({"content": "hi"}), *events) == [
        TextDelta("hi"),
        end,
    ]


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([], "provider_error"),
        ([b"[DONE]"], "provider_error"),
        ([USED], "provider_error"),
        ([choice({}, "tool_calls"), b"[DONE]"], "unexpected_tool_use"),
        ([{"error": {"code": "context_length_exceeded", "message": "Too long."}}], "context_length_exceeded"),
        ([{"error": {"type": "invalid_request_error", "message": "No such role."}}], "validation_error"),
        ([{"error": {"code": "server_error", "message": "Broken."}}], "provider_error"),
        ([{"error": {"code": 429, "message": "Slow down."}}], "rate_limited"),
        ([{"error": {"type": "rate_limit_error", "message": "Slow down."}}], "rate_limited"),
        ([{"error": "Broken."}], "provider_error"),
        ([{"choices": "many"}], "provider_error"),
        ([{"choices": [7]}], "provider_error"),
        ([choice({"content": 7})], "provider_error"),
        ([b"null"], "provider_error"),
    ],
)
def test_a_chat_without_an_end_of_its_own_failed(events: list[Any], code: str) -> None:
    *_, last = chat(choice({"content": "hi"}), *events)
    assert isinstance(last, Failed)
    assert last.code == code


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": 12, "completion_tokens": 0}, {"prompt_tokens": 12, "completion_tokens": 1}]
)
def test_a_count_before_the_text_is_not_what_an_answer_used_that_broke_off(usage: dict[str, int]) -> None:
    first = choice({"role": "assistant", "content": "hi"}, usage=usage)
    *_, last = chat(first, choice({"content": " there"}))
    assert isinstance(last, Failed)
    assert not last.usage.known
    # Who counts with each piece has counted all of them, and who ends has said what there was.
    *_, last = chat(first, choice({"content": " there"}, usage=USED["usage"]))
    assert isinstance(last, Failed)
    assert last.usage == Usage(12, 5)
    *_, last = chat(first, choice({"content": " there"}, "stop"))
    assert isinstance(last, Completed)
    assert last.usage == Usage(12, usage["completion_tokens"])


def test_a_chats_annotations_are_one_search_of_the_web() -> None:
    noted = choice({"annotations": [{"type": "url_citation"}]})
    searched = [ToolActivity("web_search", "start"), ToolActivity("web_search", "done")]
    assert chat(noted, noted, choice({"content": "hi"}, "stop"))[:-1] == [*searched, TextDelta("hi")]


def begun(**usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "msg_1", "usage": usage}}


def stops(reason: str | None, **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage or None}


STOP = {"type": "message_stop"}


@pytest.mark.parametrize("name", [None, "type"])
def test_later_usage_of_a_message_replaces_what_it_repeats(name: str | None) -> None:
    events = [
        begun(input_tokens=10, cache_read_input_tokens=5, cache_creation_input_tokens=3, output_tokens=1),
        stops(None, output_tokens=4),
        stops("end_turn", output_tokens=7, cache_read_input_tokens=None, output_tokens_details={"thinking_tokens": 2}),
        STOP,
    ]
    assert read(anthropic_messages.reader(), sse(*events, name=name)) == [Completed(Usage(18, 7, 5, 3, 2), "msg_1")]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("max_tokens", LENGTH),
        ("model_context_window_exceeded", LENGTH),
        ("refusal", REFUSED),
        ("pause_turn", PAUSED),
    ],
)
def test_a_message_that_was_cut_says_why(reason: str, told: CompletionSignal) -> None:
    assert read(anthropic_messages.reader(), sse(begun(), stops(reason), STOP)) == [Incomplete(told, Usage(), "msg_1")]


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([STOP], "provider_error"),
        ([stops("tool_use"), STOP], "unexpected_tool_use"),
        ([{"type": "error", "error": {"type": "request_too_large"}}], "context_length_exceeded"),
        ([{"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}], "provider_error"),
        ([{"type": "error", "error": {"type": "rate_limit_error"}}], "rate_limited"),
        ([{"type": "error", "error": {"type": "timeout_error"}}], "provider_timeout"),
        ([{"type": "error"}], "provider_error"),
        ([{"type": "content_block_delta", "delta": {"type": "text_delta"}}], "provider_error"),
    ],
)
def test_what_a_message_counted_at_its_beginning_is_not_what_it_used(events: list[Any], code: str) -> None:
    *_, last = read(anthropic_messages.reader(), sse(begun(input_tokens=10, output_tokens=1), *events))
    assert isinstance(last, Failed)
    assert (last.code, last.usage) == (code, Usage(10, 1) if code == "unexpected_tool_use" else Usage())


def test_what_is_thought_or_cited_is_no_text() -> None:
    deltas = [
        {"type": kind, "text": "not for you"} for kind in ("thinking_delta", "citations_delta", "input_json_delta")
    ]
    events = [{"type": "content_block_delta", "delta": delta} for delta in deltas]
    assert read(anthropic_messages.reader(), sse(*events), ended=False) == []


def of_bedrock(name: str, **data: Any) -> bytes:
    return frame({":event-type": name, ":message-type": "event"}, json.dumps(data).encode())


STOPPED = of_bedrock("messageStop", stopReason="end_turn")
TOLD = of_bedrock("metadata", usage={"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 3})


def test_an_answer_of_bedrocks_ends_with_its_usage_or_without() -> None:
    assert read(bedrock_converse.reader(), STOPPED + TOLD) == [Completed(Usage(13, 5, 3))]
    assert read(bedrock_converse.reader(), STOPPED) == [Completed(Usage())]


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        ("max_tokens", Incomplete(LENGTH, Usage())),
        ("guardrail_intervened", Incomplete(REFUSED_BY_FILTER, Usage())),
        ("content_filtered", Incomplete(FILTERED, Usage())),
        ("stop_sequence", Completed(Usage())),
    ],
)
def test_bedrocks_reasons_are_told_in_our_words(reason: str, end: ProviderChunk) -> None:
    assert read(bedrock_converse.reader(), of_bedrock("messageStop", stopReason=reason)) == [end]


@pytest.mark.parametrize("reason", ["tool_use", "malformed_model_output", "malformed_tool_use"])
def test_an_answer_that_bedrock_could_not_finish_failed(reason: str) -> None:
    (last,) = read(bedrock_converse.reader(), of_bedrock("messageStop", stopReason=reason))
    assert isinstance(last, Failed)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({":message-type": "exception", ":exception-type": "throttlingException"}, "rate_limited"),
        ({":message-type": "exception", ":exception-type": "modelTimeoutException"}, "provider_timeout"),
        ({":message-type": "exception", ":exception-type": "internalServerException"}, "provider_error"),
        ({":message-type": "error", ":error-code": "x", ":error-message": "Broken."}, "provider_error"),
        ({}, "provider_error"),
    ],
)
@pytest.mark.parametrize("payload", [b'{"message": "Broken."}', b"", b"\xff", b"[]"])
def test_an_exception_of_bedrocks_is_the_end(headers: dict[str, str], code: str, payload: bytes) -> None:
    (last,) = read(bedrock_converse.reader(), frame(headers, payload))
    assert isinstance(last, Failed)
    assert last.code == code


@pytest.mark.parametrize("place", [0, 4, 8, 20, -1])
def test_a_frame_whose_checksum_is_wrong_is_not_read(place: int) -> None:
    broken = bytearray(STOPPED)
    broken[place] ^= 0x01
    with pytest.raises(ValueError, match="Checksum|Invalid|Error"):
        read(bedrock_converse.reader(), bytes(broken) + bytes(200))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "type",
                        "error",
                        "code",
                        "message",
                        "usage",
                        "id",
                        "delta",
                        "content",
                        "choices",
                        "finish_reason",
                    ),
                    *(
                        "prompt_tokens",
                        "text",
                        "content_block",
                        "stop_reason",
                        "name",
                        "start",
                        "toolUse",
                        "stopReason",
                    ),
                    *("annotations", "input_tokens", "inputTokens", "prompt_tokens_details", "output_tokens_details"),
                ]
            ),
            inner,
        )
    ),
)
NAMES = st.sampled_from(
    [
        *("", "error", "message", "message_start", "content_block_start", "content_block_delta", "message_delta"),
        *("message_stop", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata", "response.completed"),
    ]
)


@given(NAMES, ANY_JSON)
def test_no_event_raises_and_every_chunk_has_the_types_it_promises(name: str, data: object) -> None:
    raw = json.dumps(data).encode()
    said_to: list[tuple[Reader, bytes]] = [
        (openai_chat.reader(), sse(raw)),
        (anthropic_messages.reader(), f"event: {name}\n".encode() + sse(raw)),
        (openai_responses.reader(), f"event: {name}\n".encode() + sse(raw)),
        (bedrock_converse.reader(), frame({":event-type": name, ":message-type": "event"}, raw)),
    ]
    for reader, said in said_to:
        for chunk in read(reader, said):
            if isinstance(chunk, TextDelta):
                assert chunk.text.encode() is not None
            elif isinstance(chunk, Completed | Incomplete):
                assert chunk.response_id is None or isinstance(chunk.response_id, str)
            if isinstance(chunk, Completed | Incomplete | Failed):
                assert all(type(tokens) is int for tokens in (chunk.usage.input_tokens, chunk.usage.output_tokens))
            if isinstance(chunk, Incomplete):
                assert chunk.signal.kind in get_args(Kind)
                assert chunk.signal.reason in {None, *get_args(Reason)}


@given(st.binary(max_size=300))
def test_bytes_that_are_no_stream_are_a_failure_or_a_value_error(raw: bytes) -> None:
    for reader in (
        openai_chat.reader(),
        anthropic_messages.reader(),
        openai_responses.reader(),
        bedrock_converse.reader(),
    ):
        try:
            chunks = read(reader, raw)
        except ValueError:
            continue
        assert isinstance(chunks[-1], Failed)
