"""What of a provider's citations clients are told: pages that they may be led to, and the chat's own files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.citations import (
    MAX_BYTES,
    MAX_CITATIONS,
    SNIPPET_MAX,
    TITLE_MAX,
    URL_MAX,
    Citation,
    Cited,
    CitedFile,
    Span,
    citations,
)
from minichat.domain.identity import AttachmentId
from minichat.domain.stream import Citations, told

ANSWER = "Größe 🙂: Paris it is."
PAGE = "https://example.com/a?b=c#d"
FILES = {
    "file-abc": CitedFile(AttachmentId("00000000-0000-4000-8000-000000000001"), "Größe.pdf"),
    "file-def": CitedFile(AttachmentId("00000000-0000-4000-8000-000000000002"), "b.txt"),
}


def cited(*sources: Cited) -> list[Citation]:
    return list(citations(sources, FILES, ANSWER))


def test_a_page_passes_with_its_title() -> None:
    assert cited(Cited("web", PAGE, "A title", "It says so.", (9, 14))) == [
        Citation("web", PAGE, "A title", "It says so.", (9, 14))
    ]


@pytest.mark.parametrize("title", ["", " \n\t", "\x1b\x00\u2028"])
def test_a_page_without_a_title_has_its_hosts_name(title: str) -> None:
    assert cited(Cited("web", "https://Example.com:8080/a", title))[0].title == "example.com"


def test_a_title_is_one_line_without_control_characters() -> None:
    assert cited(Cited("web", PAGE, " One\n two\x1b[31m\u2028 three "))[0].title == "One two [31m three"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/a",
        "https:example.com",
        "https://",
        "https:///a",
        "javascript:alert(1)",
        "JAVASCRIPT://example.com/%0aalert(1)",
        "data:text/html,hi",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "https://ann@example.com/",
        "https://ann:secret@example.com/",
        "https://@example.com/",
        "https://example.com\\@evil.example/",
        "https://exa\nmple.com/",
        "https://example.com/a b",
        "\x01https://example.com/",
        "https://example.com/\u202egpj.exe",
        "https://[::1/",
        "https://example.com:port/",
        "https://example.com:99999/",
        "https://example.com/" + "a" * URL_MAX,
    ],
)
def test_nobody_is_led_where_they_should_not_be(url: str) -> None:
    assert cited(Cited("web", url, "A title")) == []


@pytest.mark.parametrize("url", ["http://example.com", "HTTPS://example.com/ä", "https://[::1]:8080/"])
def test_an_address_passes_as_it_is(url: str) -> None:
    assert [one.target for one in cited(Cited("web", url))] == [url]


def test_a_file_of_the_chat_is_told_as_its_attachment_and_another_is_not() -> None:
    known, unknown = Cited("file", "file-abc", "stolen.exe"), Cited("file", "file-xyz", "b.txt")
    assert cited(known, unknown) == [Citation("file", FILES["file-abc"].attachment_id, "Größe.pdf")]


def test_an_id_of_a_file_is_no_address_and_an_address_no_file() -> None:
    assert cited(Cited("web", "file-abc"), Cited("file", PAGE)) == []


@pytest.mark.holds("contract.citations-words")
def test_a_span_counts_characters_and_gives_the_snippet_that_is_missing() -> None:
    said = Cited("web", PAGE, span=(9, 14)), Cited("web", PAGE, text=" ", span=(0, 7)), Cited("web", PAGE, text="x")
    assert [(one.snippet, one.span) for one in cited(*said)] == [("Paris", (9, 14)), ("Größe 🙂", (0, 7)), ("x", None)]


@pytest.mark.parametrize("span", [(-1, 4), (5, 4), (0, len(ANSWER) + 1), (10**30, 10**31)])
def test_a_span_outside_the_answer_is_dropped_and_its_source_is_not(span: Span) -> None:
    assert [(one.span, one.snippet) for one in cited(Cited("web", PAGE, span=span))] == [(None, "")]


def test_a_source_is_told_once_for_what_it_stands_behind_in_order_of_appearance() -> None:
    first, second, file = Cited("web", PAGE, "1", span=(0, 5)), Cited("web", PAGE, "2", span=(6, 7)), "file-def"
    found = cited(Cited("file", file), first, second, Cited("web", PAGE, "3", span=(0, 5)), Cited("file", file))
    assert [(one.source, one.title) for one in found] == [("file", "b.txt"), ("web", "1"), ("web", "2")]


def test_there_are_at_most_so_many_and_none_is_long() -> None:
    found = cited(*(Cited("web", f"https://example.com/{n}") for n in range(MAX_CITATIONS + 1)))
    assert [one.target for one in found] == [f"https://example.com/{n}" for n in range(MAX_CITATIONS)]
    long = cited(Cited("web", PAGE, "t" * 9999, "s" * 9999))[0]
    assert (len(long.title), len(long.snippet)) == (TITLE_MAX, SNIPPET_MAX)


def test_all_together_take_no_more_than_a_message_can_carry() -> None:
    found = cited(*(Cited("web", f"{PAGE}{n}", "🙂" * 999, "🙂" * 999) for n in range(MAX_CITATIONS)))
    assert 5 < len(found) < 20
    assert len(json.dumps(told(Citations(tuple(found))).data, ensure_ascii=False).encode()) < 1.1 * MAX_BYTES


@pytest.mark.holds("contract.citations-words")
def test_citations_are_told_in_the_contracts_words() -> None:
    page, file = Citation("web", PAGE, "A title", "It says so.", (0, 5)), Citation("file", "an-id", "b.txt")
    assert told(Citations((page, file))).data == {
        "items": [
            {
                "source": "web",
                "title": "A title",
                "url": PAGE,
                "snippet": "It says so.",
                "span": {"start": 0, "end": 5},
            },
            {"source": "file", "title": "b.txt", "attachment_id": "an-id", "snippet": ""},
        ]
    }


ADDRESS = st.text(max_size=30) | st.sampled_from([*FILES, PAGE, "https://x@y", "http://[", "https://\ud83d"])
SOURCE = st.builds(
    Cited,
    st.sampled_from(["web", "file"]),
    ADDRESS | ADDRESS.map(lambda text: f"https://{text}"),
    st.text(max_size=300),
    st.text(max_size=600),
    st.none() | st.tuples(st.integers(), st.integers()) | st.tuples(st.integers(0, 20), st.integers(0, 20)),
)


@given(st.lists(SOURCE, max_size=12), st.text())
def test_whatever_is_cited_what_is_told_is_safe(sources: list[Cited], answer: str) -> None:
    found = citations(sources, FILES, answer)
    assert len(set(found)) == len(found)
    known = {file.attachment_id for file in FILES.values()}
    for one in found:
        assert one.target in known if one.source == "file" else one.target.lower().startswith(("http://", "https://"))
        assert one.title
        assert one.span is None or 0 <= one.span[0] <= one.span[1] <= len(answer)
    assert not [file_id for file_id in FILES if file_id in {one.target for one in found}]


@given(st.lists(SOURCE, max_size=12), st.text())
def test_what_a_source_cites_twice_changes_nothing(sources: list[Cited], answer: str) -> None:
    assert citations([*sources, *sources], FILES, answer) == citations(sources, FILES, answer)
