"""Server-sent events of a provider: whatever the network does to the bytes, the events are the same."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.providers.sse import MAX_EVENT_BYTES, EventParser, EventTooLarge, WireEvent

NO_LINE_ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
"""What `str.splitlines` takes for the end of a line, and the protocol does not."""

STREAM = (
    f"event: first\ndata: a{NO_LINE_ENDS}b\n\n"
    "event: second\r\ndata: one\r\ndata: two\r\n\r\n"
    ": nothing to say\n\n"
    "event: third\rdata: äb😀c\r\r"
    "data: unnamed\n\n"
).encode()
EVENTS = [
    WireEvent("first", f"a{NO_LINE_ENDS}b"),
    WireEvent("second", "one\ntwo"),
    WireEvent("third", "äb😀c"),
    WireEvent("", "unnamed"),
]


def parsed(chunks: Iterable[bytes]) -> list[WireEvent]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_a_cut_anywhere_changes_nothing(at: int) -> None:
    assert parsed([STREAM[:at], STREAM[at:]]) == EVENTS


def test_single_bytes_are_enough() -> None:
    assert parsed(STREAM[at : at + 1] for at in range(len(STREAM))) == EVENTS


@st.composite
def _streams(draw: st.DrawFn) -> tuple[list[WireEvent], list[bytes]]:
    word = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
    name = st.text("abc.", max_size=6)
    events = [WireEvent(*pair) for pair in draw(st.lists(st.tuples(name, st.lists(word, min_size=1).map("\n".join))))]
    wire = ""
    for event in events:
        end = draw(st.sampled_from(["\n", "\r", "\r\n"]))
        lines = [f"event: {event.name}", *(f"data: {line}" for line in event.data.split("\n")), ""]
        wire += "".join(line + end for line in lines)
    raw = wire.encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)))))
    return events, [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]


@given(_streams())
def test_any_events_with_any_line_ends_in_any_chunks_come_out_whole(
    stream: tuple[list[WireEvent], list[bytes]],
) -> None:
    events, chunks = stream
    assert parsed(chunks) == events


def test_an_event_that_ends_with_cr_is_given_without_waiting_for_more() -> None:
    assert parsed([b"data: last\r\r"]) == [WireEvent("", "last")]


def test_a_crlf_cut_in_two_ends_one_line() -> None:
    assert parsed([b"data: a\r", b"", b"\ndata: b\r\n\r", b"\n"]) == [WireEvent("", "a\nb")]


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", [WireEvent("", "after a byte order mark")]),
        (b"data:no space\n\n", [WireEvent("", "no space")]),
        (b"data:  two spaces\n\n", [WireEvent("", " two spaces")]),
        (b"data\n\n", [WireEvent("", "")]),
        (b"data: a: b\n\n", [WireEvent("", "a: b")]),
        (b"id: 7\nretry: 1\nother: x\ndata: a\n\ndata: b\n\n", [WireEvent("", "a", "7"), WireEvent("", "b")]),
        (b"event: without data\n\ndata: a\n\n", [WireEvent("", "a")]),
        (b"data: the end is missing\n", []),
        (b"\n\n\n", []),
    ],
)
def test_fields_are_read_as_the_standard_says(raw: bytes, events: list[WireEvent]) -> None:
    assert parsed([raw]) == events


@pytest.mark.parametrize("size", [MAX_EVENT_BYTES, 2048])
def test_an_event_larger_than_the_bound_is_refused_before_it_is_whole(size: int) -> None:
    endless = (b"data: " + b"x" * size for _ in range(MAX_EVENT_BYTES // size + 1))
    with pytest.raises(EventTooLarge):
        parsed(endless)


def test_an_event_larger_than_the_bound_is_refused_in_one_chunk_and_over_many_lines() -> None:
    line = b"data: " + b"x" * 1000 + b"\n"
    with pytest.raises(EventTooLarge):
        parsed([line * (MAX_EVENT_BYTES // 1000) + b"\n"])


def test_the_bound_is_of_one_event_and_keep_alives_belong_to_none() -> None:
    half = b"data: " + b"x" * (MAX_EVENT_BYTES // 2) + b"\n\n"
    keep_alive = b": " + b"x" * 100_000 + b"\n"
    assert len(parsed([half, half, half, *[keep_alive] * 50, half])) == 4


def test_the_events_before_a_bad_one_are_given() -> None:
    events = EventParser().feed(b"data: good\n\ndata: \xff\n\n")
    assert next(events) == WireEvent("", "good")
    with pytest.raises(UnicodeDecodeError):
        next(events)
