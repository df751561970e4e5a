"""What holds of an answer whichever API tells it: nothing, halves, names, labels, ends, and who refused."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.answer_end import REFUSED, CompletionSignal
from minichat.domain.citations import Cited
from minichat.providers import anthropic_messages, bedrock_converse, openai_chat, openai_responses
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity
from minichat.providers.reading import NotAnAnswer
from minichat.providers.sse import MAX_EVENT_BYTES, EventTooLarge
from tests.support.providers.tongues import TONGUES, USED, Tongue, case, converse, event, read, text_of

APIS = ("responses", "chat", "messages")
SPEAKS_SSE = [tongue for tongue in TONGUES if tongue.kind != "bedrock_converse"]


@pytest.fixture(params=TONGUES, ids=lambda tongue: tongue.kind)
def tongue(request: pytest.FixtureRequest) -> Tongue:
    found: Tongue = request.param
    return found


@pytest.mark.parametrize("api", APIS)
def test_a_frame_with_empty_data_does_not_end_the_prepared_answers(api: str) -> None:
    chunks = case(f"frames-that-carry-nothing.{api}.sse")
    assert (text_of(chunks), type(chunks[-1])) == ("one two", Completed)


def test_a_frame_that_carries_nothing_is_passed_over_wherever_it_comes(tongue: Tongue) -> None:
    for nothing in tongue.nothing:
        said = (nothing, tongue.text("one "), nothing, tongue.text("two"), nothing, tongue.end)
        chunks = read(tongue.reader(), *said)
        assert chunks[:-1] == [TextDelta("one "), TextDelta("two")], nothing
        assert isinstance(chunks[-1], Completed)
        assert chunks[-1].usage == USED


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_a_character_that_is_cut_in_two_is_whole_in_the_prepared_answers(api: str) -> None:
    chunks = case(f"a-character-cut-in-two.{api}.sse")
    assert (text_of(chunks), type(chunks[-1])) == ("Hi 😀 bye", Completed)


def units(text: str) -> list[str]:
    """The UTF-16 units of a text: what JSON escapes one by one."""
    raw = text.encode("utf-16-le")
    return [chr(int.from_bytes(raw[at : at + 2], "little")) for at in range(0, len(raw), 2)]


@given(text=st.text("ab😀👨‍👩‍👧\u2028", min_size=1, max_size=12), cuts=st.sets(st.integers(0, 40)))
def test_a_text_is_the_same_wherever_its_deltas_are_cut(text: str, cuts: set[int]) -> None:
    edges = sorted({0, len(units(text)), *(cut % (len(units(text)) + 1) for cut in cuts)})
    deltas = ["".join(units(text)[a:b]) for a, b in itertools.pairwise(edges)]
    for tongue in TONGUES:
        chunks = read(tongue.reader(), *map(tongue.text, deltas), tongue.end)
        assert text_of(chunks) == text
        assert all(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


@pytest.mark.parametrize(
    ("deltas", "told"),
    [
        (["\ud83d"], ["\ufffd"]),
        (["a\ud83d"], ["a", "\ufffd"]),
        (["a\ud83d", "b"], ["a", "\ufffdb"]),
        (["a\ud83d", "", "\ude00"], ["a", "😀"]),
        (["\ud83d", "\ud83d", "\ude00"], ["\ufffd", "😀"]),
        (["\ude00a"], ["\ufffda"]),
        (["\ude00", "\ud83d"], ["\ufffd", "\ufffd"]),
    ],
)
def test_a_half_is_replaced_only_when_its_other_one_can_no_longer_come(
    tongue: Tongue, deltas: list[str], told: list[str]
) -> None:
    *chunks, last = read(tongue.reader(), *map(tongue.text, deltas), tongue.end)
    assert chunks == [TextDelta(text) for text in told]
    assert isinstance(last, Completed)


def test_a_half_of_an_answer_that_broke_is_not_told(tongue: Tongue) -> None:
    chunks = read(tongue.reader(), tongue.text("a\ud83d"), tongue.failure)
    assert text_of(chunks) == "a"
    assert isinstance(chunks[-1], Failed)


PAGE = "https://example.com/a"


def test_spans_count_a_character_that_was_cut_once() -> None:
    def of_anthropic(text: str) -> bytes:
        return event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}})

    begins = event({"type": "content_block_start", "content_block": {"type": "text", "text": ""}})
    where = {"type": "web_search_result_location", "url": PAGE}
    cites = event({"type": "content_block_delta", "delta": {"type": "citations_delta", "citation": where}})
    stops = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}) + event({"type": "message_stop"})
    *_, last = read(
        anthropic_messages.reader(),
        *(begins, of_anthropic("a\ud83d"), of_anthropic("\ude00 "), begins, of_anthropic("b\ud83d")),
        *(of_anthropic("\ude00"), cites, stops),
    )
    assert isinstance(last, Completed)
    assert last.citations == (Cited("web", PAGE, span=(3, 5)),)
    *_, last = read(
        bedrock_converse.reader(),
        *(converse("contentBlockDelta", delta={"text": text}) for text in ("a\ud83d", "\ude00 ")),
        converse("contentBlockStop"),
        *(converse("contentBlockDelta", delta={"text": text}) for text in ("b\ud83d", "\ude00")),
        converse("contentBlockDelta", delta={"citation": {"location": {"web": {"url": PAGE}}}}),
        converse("messageStop", stopReason="end_turn") + converse("metadata", usage={}),
    )
    assert isinstance(last, Completed)
    assert last.citations == (Cited("web", PAGE, span=(3, 5)),)


def test_the_parts_of_a_final_response_are_where_the_cut_text_was_told() -> None:
    text = {"type": "response.output_text.delta"}
    found = {"type": "url_citation", "url": PAGE, "start_index": 2, "end_index": 4}
    parts = [{"type": "output_text", "text": "a😀 b", "annotations": [found]}]
    end = {"type": "response.completed", "response": {"output": [{"type": "message", "content": parts}]}}
    deltas = [event(text | {"delta": delta}) for delta in ("a\ud83d", "\ude00 b")]
    *told, last = read(openai_responses.reader(), *deltas, event(end))
    assert text_of(told) == "a😀 b"
    assert isinstance(last, Completed)
    assert last.citations[0].span == (2, 4)


NAMES = ("message", "data", "ping", "content_block_stop", "response.created")


@pytest.mark.parametrize(
    ("tongue", "name"),
    # A chat's events have nothing but their name to say that they are failures.
    [*itertools.product(SPEAKS_SSE, NAMES), (TONGUES[0], "error"), (TONGUES[2], "error")],
)
def test_what_an_event_says_of_itself_counts_more_than_its_name(tongue: Tongue, name: str) -> None:
    said = b"".join([tongue.text("one "), tongue.text("two"), tongue.end])
    renamed = [f"event: {name}\n".encode() + line for line in said.split(b"\n") if line.startswith(b"data:")]
    chunks = read(tongue.reader(), b"\n\n".join(renamed) + b"\n\n")
    assert (text_of(chunks), type(chunks[-1])) == ("one two", Completed)


def test_a_failure_is_one_by_its_name_or_by_what_it_says() -> None:
    flat = {"type": "overloaded_error", "message": "Busy."}
    for said in (event(flat, "error"), event({"error": flat}), event({"error": flat}, "message")):
        for tongue in SPEAKS_SSE:
            (last,) = read(tongue.reader(), said)
            assert isinstance(last, Failed)
            assert last.diagnostic == "overloaded_error: Busy."
    (last,) = read(openai_chat.reader(), event({"object": "error", "message": "Busy.", "code": 429}))
    assert isinstance(last, Failed)
    assert last.code == "rate_limited"


@pytest.mark.parametrize("before", [b"", b"\n", b"\xef\xbb\xbf", b" \r\n\t"])
def test_one_document_is_a_whole_answer(tongue: Tongue, before: bytes) -> None:
    raw = before + json.dumps(tongue.whole("Größe 😀"), ensure_ascii=False).encode() + b"\n"
    for parts in ([raw], [raw[at : at + 1] for at in range(len(raw))]):
        told, last = read(tongue.reader(), *parts)
        assert told == TextDelta("Größe 😀")
        assert isinstance(last, Completed)
        assert last.usage == USED


def test_a_document_that_is_cut_off_or_no_answer_is_a_failure(tongue: Tongue) -> None:
    raw = json.dumps(tongue.whole("text")).encode()
    for broken in (raw[:-1], b"{}", b'{"a": 1}', b'{"output": 7, "choices": 7, "content": 7, "status": 7}', raw + raw):
        (last,) = read(tongue.reader(), broken)
        assert isinstance(last, Failed)
        assert last.code == "provider_error"
    with pytest.raises(EventTooLarge):
        read(tongue.reader(), b"{", b" " * MAX_EVENT_BYTES)


def test_a_page_is_no_answer_and_what_is_nothing_at_all_is_shown(tongue: Tongue) -> None:
    with pytest.raises(NotAnAnswer, match="Service unavailable"):
        read(tongue.reader(), b"\n<html>Service unavailable</html>")
    (last,) = read(tongue.reader(), b"" if tongue.kind == "bedrock_converse" else b"upstream is gone\n\n")
    assert isinstance(last, Failed)
    assert tongue.kind == "bedrock_converse" or "upstream is gone" in last.diagnostic


def test_a_whole_answer_has_its_searches_and_its_sources() -> None:
    page = {"type": "url_citation", "url": PAGE, "title": "T", "start_index": 0, "end_index": 4}
    where = {"type": "web_search_result_location", "url": PAGE, "title": "T", "cited_text": ""}
    source = {"title": "T", "location": {"web": {"url": PAGE}}}
    wholes: dict[str, dict[str, Any]] = {
        "openai_responses": {
            "status": "completed",
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hidden"}]},
                {"type": "web_search_call", "id": "ws_1", "status": "completed"},
                {"type": "message", "content": [{"type": "output_text", "text": "Two.", "annotations": [page]}]},
            ],
        },
        "openai_chat": {
            "choices": [
                {
                    "finish_reason": "stop",
                    "message": {
                        "content": "Two.",
                        "reasoning_content": "hidden",
                        "annotations": [{"type": "url_citation", "url_citation": page}],
                    },
                }
            ]
        },
        "anthropic_messages": {
            "stop_reason": "end_turn",
            "content": [
                {"type": "thinking", "thinking": "hidden", "signature": "x"},
                {"type": "server_tool_use", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "content": []},
                {"type": "text", "text": "Two.", "citations": [where]},
            ],
        },
        "bedrock_converse": {
            "stopReason": "end_turn",
            "output": {
                "message": {
                    "content": [
                        {"reasoningContent": {"reasoningText": {"text": "hidden"}}},
                        {"toolUse": {"name": "nova_grounding", "input": {}, "type": "server_tool_use"}},
                        {"toolResult": {"type": "nova_grounding_result", "content": []}},
                        {"citationsContent": {"content": [{"text": "Two."}], "citations": [source]}},
                    ]
                }
            },
        },
    }
    searched = [ToolActivity("web_search", "start"), ToolActivity("web_search", "done")]
    for tongue in TONGUES:
        *told, last = read(tongue.reader(), json.dumps(wholes[tongue.kind]).encode())
        assert told == [*searched, TextDelta("Two.")], tongue.kind
        assert isinstance(last, Completed)
        assert last.citations == (Cited("web", PAGE, "T", span=(0, 4)),)


@pytest.mark.parametrize(
    ("status", "said", "end"),
    [
        ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}, Incomplete),
        ("failed", {"error": {"code": "server_error", "message": "Broken."}}, Failed),
        ("cancelled", {}, Failed),
        ("in_progress", {}, Failed),
        ("queued", {}, Failed),
        (None, {}, Failed),
    ],
)
def test_a_whole_response_ends_as_its_status_says(status: str | None, said: dict[str, Any], end: type) -> None:
    whole = TONGUES[0].whole("text") | {"status": status} | said
    assert isinstance(read(openai_responses.reader(), json.dumps(whole).encode())[-1], end)


def test_the_text_of_a_thinking_model_is_in_parts() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hidden"}]}
    contents: list[Any] = [
        [thought],
        [thought, {"type": "text", "text": "one "}],
        ["two ", {"type": "output_text", "text": "three"}, {"type": "invented"}, {"type": "text", "text": None}],
        [],
    ]
    said = [event({"choices": [{"delta": {"content": content}}]}) for content in contents]
    chunks = read(openai_chat.reader(), *said, event({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    assert (text_of(chunks), type(chunks[-1])) == ("one two three", Completed)


@pytest.mark.parametrize("content", [7, [7], {"type": "text", "text": "x"}, [{"type": "text", "text": 7}]])
def test_a_content_that_is_no_text_is_a_failure(content: Any) -> None:
    (last,) = read(openai_chat.reader(), event({"choices": [{"delta": {"content": content}}]}))
    assert isinstance(last, Failed)


def test_what_a_model_says_instead_of_an_answer_is_told() -> None:
    refused = event({"type": "response.refusal.delta", "delta": "I cannot."})
    chunks = read(openai_responses.reader(), refused, TONGUES[0].end)
    assert (text_of(chunks), signal_of(chunks)) == ("I cannot.", REFUSED)
    refused = event({"choices": [{"delta": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}]})
    chunks = read(openai_chat.reader(), refused)
    assert (text_of(chunks), signal_of(chunks)) == ("I cannot.", REFUSED)
    part = {"type": "refusal", "refusal": "I cannot."}
    whole = {"status": "completed", "output": [{"type": "message", "content": [part]}]}
    chunks = read(openai_responses.reader(), json.dumps(whole).encode())
    assert (text_of(chunks), signal_of(chunks)) == ("I cannot.", REFUSED)


def test_a_refusal_without_text_says_what_is_told_beside_it() -> None:
    delta = {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "That I will not do."}}
    end = event({"type": "message_delta", "delta": delta}) + event({"type": "message_stop"})
    chunks = read(anthropic_messages.reader(), end)
    assert (text_of(chunks), signal_of(chunks)) == ("That I will not do.", REFUSED)
    chunks = read(anthropic_messages.reader(), TONGUES[2].text("No."), end)
    assert (text_of(chunks), signal_of(chunks)) == ("No.", REFUSED)


def test_a_call_of_a_function_is_no_answer_whatever_its_server_calls_its_end() -> None:
    call = {"tool_calls": [{"index": 0, "function": {"name": "look_up", "arguments": "{}"}}]}
    (last,) = read(openai_chat.reader(), event({"choices": [{"delta": call, "finish_reason": "stop"}]}))
    assert isinstance(last, Failed)
    assert last.code == "unexpected_tool_use"
    # Where there is text, it is one.
    *_, last = read(
        openai_chat.reader(), event({"choices": [{"delta": {"content": "Hi", **call}, "finish_reason": "stop"}]})
    )
    assert isinstance(last, Completed)


def signal_of(chunks: list[ProviderChunk]) -> CompletionSignal | None:
    """How the answer ended that is not whole."""
    return chunks[-1].signal if isinstance(chunks[-1], Incomplete) else None


def test_text_that_no_delta_told_is_told_at_the_end() -> None:
    parts = [{"type": "output_text", "text": "one two"}]
    end = event({"type": "response.completed", "response": {"output": [{"type": "message", "content": parts}]}})
    delta = event({"type": "response.output_text.delta", "delta": "one "})
    assert text_of(read(openai_responses.reader(), end)) == "one two"
    assert text_of(read(openai_responses.reader(), delta, end)) == "one two"
    begins = event({"type": "content_block_start", "content_block": {"type": "text", "text": "one "}})
    chunks = read(anthropic_messages.reader(), begins, TONGUES[2].text("two"), TONGUES[2].end)
    assert text_of(chunks) == "one two"
    message = {"choices": [{"delta": {}, "message": {"content": "one two"}, "finish_reason": "stop"}]}
    assert text_of(read(openai_chat.reader(), event(message))) == "one two"
    assert text_of(read(openai_chat.reader(), TONGUES[1].text("one two"), event(message))) == "one two"


@pytest.mark.parametrize("kind", sorted(openai_responses.NOT_OFFERED_ITEMS))
def test_an_answer_that_waits_for_a_tool_of_ours_is_a_failure(kind: str) -> None:
    response = {"output": [{"type": kind}], "usage": {"input_tokens": 11, "output_tokens": 7}}
    (last,) = read(openai_responses.reader(), event({"type": "response.completed", "response": response}))
    assert isinstance(last, Failed)
    assert (last.code, last.usage) == ("unexpected_tool_use", USED)
