"""What each kind of provider cites, read from its wire; nothing that stands there can cost the answer."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.citations import SNIPPET_MAX, TITLE_MAX, URL_MAX, Cited
from minichat.local.dialects.bedrock import frame
from minichat.providers import anthropic_messages, bedrock_converse, openai_chat, openai_responses
from minichat.providers.chunks import Completed, Failed, Incomplete
from minichat.providers.citations import MAX_CITED
from minichat.providers.transport import Reader

PAGE = "https://example.com/a"


def cited(reader: Reader, *events: bytes) -> list[Cited]:
    """What an answer of these events cites; it has to end well."""
    chunks = [chunk for event in events for chunk in reader.feed(event)]
    last = next((chunk for chunk in chunks if isinstance(chunk, Completed | Incomplete | Failed)), None)
    assert isinstance(last, Completed | Incomplete), last
    return list(last.citations)


def sse(data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def part(text: str, *annotations: Any, kind: str = "output_text") -> dict[str, Any]:
    return {"type": kind, "text": text, "annotations": list(annotations)}


def of_responses(*output: Any, streamed: list[str], ends: str = "completed") -> list[Cited]:
    deltas = [sse({"type": "response.output_text.delta", "delta": text}) for text in streamed]
    end = sse({"type": f"response.{ends}", "response": {"id": "resp_1", "output": list(output)}})
    return cited(openai_responses.reader(), *deltas, end)


def page(start: Any, end: Any, **said: Any) -> dict[str, Any]:
    return {"type": "url_citation", "url": PAGE, "title": "T", "start_index": start, "end_index": end, **said}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "content": list(parts)}


def test_offsets_within_a_part_become_offsets_of_the_whole_answer() -> None:
    reasoning, search = {"type": "reasoning", "summary": []}, {"type": "web_search_call", "id": "ws_1"}
    refusal = {"type": "refusal", "refusal": "No."}
    first = message(part("🙂 One. ", page(0, 1)), refusal, part("Two. ", page(0, 4)))
    second = message(part("Größe.", page(2, 5, text="It says so.")))
    streamed = ["🙂 ", "One. ", "No.", "Two. Gr", "öße."]
    found = of_responses(reasoning, first, search, second, streamed=streamed)
    assert [one.span for one in found] == [(0, 1), (10, 14), (17, 20)]
    whole = "".join(streamed)
    assert [whole[slice(*one.span)] for one in found if one.span] == ["🙂", "Two.", "öße"]
    assert found[2] == Cited("web", PAGE, "T", "It says so.", (17, 20))


def test_offsets_of_a_text_that_was_not_streamed_say_nothing() -> None:
    output = message(part("One. ", page(0, 3)), part("Two.", page(0, 3)))
    assert [one.span for one in of_responses(output, streamed=["One. ", "Other."])] == [(0, 3), None]


def test_a_text_that_came_with_the_end_alone_is_cited_where_it_then_stands() -> None:
    output = message(part("One. ", page(0, 3)), part("Two.", page(0, 3)))
    for streamed in ([], ["On"], ["One. ", "T"]):
        assert [one.span for one in of_responses(output, streamed=streamed)] == [(0, 3), (5, 8)]


@pytest.mark.parametrize("place", [(0, 5), (-1, 2), (3, 2), (None, 2), ("0", 2), (True, 2), (0.0, 2)])
def test_offsets_beyond_their_part_say_nothing_even_when_the_answer_goes_on(place: tuple[Any, Any]) -> None:
    output = message(part("One.", page(*place)), part("Two."))
    assert [one.span for one in of_responses(output, streamed=["One.Two."])] == [None]


def test_files_and_pages_are_cited_and_other_annotations_are_not() -> None:
    file = {"type": "file_citation", "file_id": "file-abc", "filename": "a.pdf", "index": 3}
    others = [
        {"type": "container_file_citation", "file_id": "cfile_1", "start_index": 0, "end_index": 1},
        {"type": "file_path", "file_id": "file-abc", "index": 0},
        {"type": "invented_tomorrow"},
    ]
    output = message(part("One.", *others, file, page(0, 1)), part("Two.", page(0, 1), kind="other"))
    expected = [Cited("file", "file-abc"), Cited("web", PAGE, "T", "", (0, 1))]
    assert of_responses(output, streamed=["One."]) == expected


def test_an_answer_that_was_cut_cites_too() -> None:
    assert of_responses(message(part("One.", page(0, 1))), streamed=["One."], ends="incomplete")


def choice(delta: Any, reason: str | None = None, **said: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **said}]})


def test_a_chat_cites_pages_in_its_deltas_or_in_the_message_at_its_end() -> None:
    inner = {"url": PAGE, "title": "T", "start_index": 0, "end_index": 2, "content": "It says so."}
    annotations = [{"type": "url_citation", "url_citation": inner}, {"type": "other", "url": PAGE}]
    expected = [Cited("web", PAGE, "T", "It says so.", (0, 2))]
    done = b"data: [DONE]\n\n"
    told = choice({"annotations": annotations}), choice({"content": "hi"}, "stop"), done
    assert cited(openai_chat.reader(), *told) == expected
    told = choice({"content": "hi"}), choice({}, "length", message={"annotations": annotations}), done
    assert cited(openai_chat.reader(), *told) == expected


def block(number: int, *deltas: dict[str, Any]) -> bytes:
    start = sse({"type": "content_block_start", "index": number, "content_block": {"type": "text", "text": ""}})
    return start + b"".join(sse({"type": "content_block_delta", "index": number, "delta": delta}) for delta in deltas)


def found_page(text: str = "It says so.", **said: Any) -> dict[str, Any]:
    where = {"type": "web_search_result_location", "url": PAGE, "title": "T", "cited_text": text}
    return {"type": "citations_delta", "citation": where | said}


STOPS = sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}) + sse({"type": "message_stop"})


def test_a_message_cites_by_block() -> None:
    text = [{"type": "text_delta", "text": text} for text in ("Nobody says so. ", "🙂 ", "One says so. ", "Two.")]
    blocks = [
        block(0, text[0]),
        block(1, found_page(), text[1], text[2]),
        block(2, text[3], found_page(), found_page()),
    ]
    found = cited(anthropic_messages.reader(), *blocks, STOPS)
    assert [one.span for one in found] == [(16, 31), (31, 35), (31, 35)]
    assert found[0] == Cited("web", PAGE, "T", "It says so.", (16, 31))


def test_a_page_without_a_text_to_stand_behind_is_cited_without_a_place() -> None:
    assert cited(anthropic_messages.reader(), block(0, found_page()), STOPS)[0].span is None


def test_documents_are_never_sent_and_therefore_not_cited() -> None:
    location = {"type": "char_location", "document_index": 0, "document_title": "a", "cited_text": "b"}
    assert cited(anthropic_messages.reader(), block(0, {"type": "citations_delta", "citation": location}), STOPS) == []
    document = {"title": "T", "location": {"documentChar": {"documentIndex": 0, "start": 0, "end": 1}}}
    assert cited(bedrock_converse.reader(), of_bedrock({"citation": document}), ENDS) == []


def of_bedrock(delta: Any) -> bytes:
    return event("contentBlockDelta", delta=delta, contentBlockIndex=0)


def event(name: str, **data: Any) -> bytes:
    return frame({":event-type": name, ":message-type": "event"}, json.dumps(data).encode())


ENDS = event("messageStop", stopReason="end_turn") + event("metadata", usage={})


def test_converse_cites_by_block() -> None:
    source = {"title": "T", "location": {"web": {"url": PAGE, "domain": "example.com"}}}
    passages = {"sourceContent": [{"text": "It says"}, {"text": "so."}]}
    events = [
        of_bedrock({"text": "Nobody. "}),
        event("contentBlockStop", contentBlockIndex=0),
        of_bedrock({"text": "🙂 One."}),
        of_bedrock({"citation": source | passages}),
    ]
    assert cited(bedrock_converse.reader(), *events, ENDS) == [Cited("web", PAGE, "T", "It says so.", (8, 14))]


def annotated(annotations: Any) -> tuple[Reader, bytes]:
    output = [message({"type": "output_text", "text": "One.", "annotations": annotations})]
    return openai_responses.reader(), sse({"type": "response.completed", "response": {"output": output}})


def responded(output: Any) -> tuple[Reader, bytes]:
    return openai_responses.reader(), sse({"type": "response.completed", "response": {"output": output}})


def chatted(annotations: Any) -> tuple[Reader, bytes]:
    said = choice({"annotations": annotations}) + choice({}, "stop", message={"annotations": annotations})
    return openai_chat.reader(), said + b"data: [DONE]\n\n"


def messaged(citation: Any) -> tuple[Reader, bytes]:
    return anthropic_messages.reader(), block(0, {"type": "citations_delta", "citation": citation}) + STOPS


def conversed(citation: Any) -> tuple[Reader, bytes]:
    return bedrock_converse.reader(), of_bedrock({"citation": citation}) + ENDS


Said = Callable[[Any], tuple[Reader, bytes]]
WORDS = (
    *("type", "url_citation", "file_citation", "url", "file_id", "title", "text", "content", "cited_text", PAGE),
    *("start_index", "end_index", "web_search_result_location", "location", "web", "sourceContent", "output_text"),
    *("annotations", "message"),
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
HOSTILE = st.recursive(
    LEAF | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=20,
)


# Most of what is right, so that the readers get as far as they can.
HALF_RIGHT = st.fixed_dictionaries(
    {"type": st.sampled_from(["url_citation", "file_citation", "web_search_result_location"]), "url": st.just(PAGE)},
    optional={
        **dict.fromkeys(("title", "text", "cited_text", "start_index", "end_index", "file_id"), HOSTILE),
        "url_citation": HOSTILE | st.fixed_dictionaries({"url": st.just(PAGE) | HOSTILE, "content": HOSTILE}),
        "location": HOSTILE | st.just({"web": {"url": PAGE}}),
        "sourceContent": HOSTILE | st.lists(st.fixed_dictionaries({"text": HOSTILE}), max_size=3),
    },
)


@given(hostile=HOSTILE | HALF_RIGHT | st.lists(HALF_RIGHT | HOSTILE, max_size=3))
def test_nothing_that_is_cited_costs_the_answer(hostile: Any) -> None:
    for said in (annotated, responded, chatted, messaged, conversed):
        for one in cited(*said(hostile)):
            assert one.target
            f"{one.target}{one.title}{one.text}".encode()


def in_a_chat(annotations: list[Any]) -> tuple[Reader, bytes]:
    return chatted([{"url_citation": annotation} for annotation in annotations])


@pytest.mark.parametrize("said", [annotated, in_a_chat])
def test_a_flood_of_citations_is_cut(said: Said) -> None:
    assert len(cited(*said([page(0, 1)] * (MAX_CITED + 1)))) == MAX_CITED
    long = cited(*said([page(0, 1, title="t" * 9999, text="s" * 9999, content="s" * 9999)]))[0]
    assert (len(long.title), len(long.text)) == (TITLE_MAX, SNIPPET_MAX)


@pytest.mark.parametrize("citing", [block(0, found_page()) * 11, block(0, *[found_page()] * 11)])
def test_a_flood_that_comes_bit_by_bit_is_cut_too(citing: bytes) -> None:
    reader = anthropic_messages.reader()
    assert len(cited(reader, *[citing] * 100, STOPS)) == MAX_CITED


def test_an_address_that_is_too_long_stays_too_long() -> None:
    found = cited(*messaged(found_page(url=PAGE + "a" * 9999)["citation"]))
    assert len(found[0].target) > URL_MAX


def test_half_a_character_becomes_a_replacement_that_utf8_can_carry() -> None:
    found = cited(*messaged(found_page("a\ud83d", title="\udc00b")["citation"]))
    assert (found[0].text, found[0].title) == ("a\ufffd", "\ufffdb")
