"""What every kind of provider has in common, over real sockets: one script, five wire formats, the same chunks."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from minichat.domain.answer_end import CUT, FILTERED, LENGTH, PAUSED, REFUSED, REFUSED_BY_FILTER, CompletionSignal
from minichat.domain.citations import Cited
from minichat.domain.tool_details import ToolDetails
from minichat.domain.usage import Usage
from minichat.local.dialects.dialect import SECRETS
from minichat.provider_entries import Timeouts
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity
from tests.support.providers.calls import (
    a_prompt,
    cancelling_frees_the_connection,
    chunks_of,
    closing_frees_the_connection,
    text_of,
)
from tests.support.providers.files import a_scripted_provider
from tests.support.providers.kinds import KINDS, Kind

WORDS = [TextDelta("word1 "), TextDelta("word2 "), TextDelta("word3")]
TERMINAL = (Completed, Incomplete, Failed)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with a_scripted_provider(tmp_path_factory.mktemp("provider")) as address:
        yield address


@pytest.fixture(params=KINDS, ids=[kind.name for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


Ask = Callable[..., list[ProviderChunk]]


@pytest.fixture
def ask(url: str, kind: Kind) -> Ask:
    """Every chunk of one call; the last one is the only terminal one."""

    def asked(script: str, **said: Any) -> list[ProviderChunk]:
        chunks = chunks_of(kind.entry(url, **said), a_prompt(script))
        assert [chunk for chunk in chunks if isinstance(chunk, TERMINAL)] == chunks[-1:]
        return chunks

    return asked


def failed(chunks: list[ProviderChunk]) -> Failed:
    last = chunks[-1]
    assert isinstance(last, Failed)
    return last


def calls(url: str) -> int:
    return int(httpx2.get(f"{url}/control/stats", trust_env=False).json()["calls"])


def test_an_answer_is_its_deltas_and_what_was_used(ask: Ask, kind: Kind) -> None:
    *deltas, last = ask("[[words:3]][[usage:100,20,30,10,5]]")
    assert deltas == WORDS
    assert isinstance(last, Completed)
    assert last.usage == Usage(100, 20, 30, 10, 5 if kind.counts_reasoning else 0)
    assert (last.response_id is not None) == kind.has_id


def test_every_character_comes_through_in_pieces_of_any_size(ask: Ask) -> None:
    text = 'Größe \u2028 😀 \\ " end'
    for size in (1, 7):
        assert text_of(ask(f"[[say:{text}]][[bytes:{size}]][[delay:0]]")) == text


def test_usage_that_is_not_told_is_unknown(ask: Ask) -> None:
    *deltas, last = ask("[[words:3]][[no-usage]]")
    assert (deltas, isinstance(last, Completed)) == (WORDS, True)
    assert isinstance(last, Completed)
    assert not last.usage.known


def test_an_empty_answer_is_one(ask: Ask) -> None:
    assert isinstance(ask("[[say:]]")[-1], Completed)


def searched(kind: Kind) -> list[ProviderChunk]:
    """What is told of a search of the web."""
    details = ToolDetails(query="as told" if kind.tells_queries else None)
    return [ToolActivity("web_search", "start"), ToolActivity("web_search", "done", details)]


def test_a_search_of_the_web_is_told_before_the_text(ask: Ask, kind: Kind) -> None:
    chunks = ask("[[words:3]][[tool:web_search]]")
    assert chunks[:-1] == [*searched(kind), *WORDS]


@pytest.mark.parametrize("ending", ["", "[[incomplete:max_output_tokens]]"])
def test_what_an_answer_cites_comes_with_its_end(ask: Ask, kind: Kind, ending: str) -> None:
    pages = "[[cite:https://example.com/a A title]][[cite:https://example.com/ä 数]]"
    *_, last = ask(f"[[say:Größe 🙂 counts.]]{pages}[[cite-file:file-abc]]{ending}")
    assert isinstance(last, Completed | Incomplete)
    snippet, span = "As told: Größe 🙂 counts." if kind.tells_snippets else "", (0, len("Größe 🙂 counts."))
    found = [
        Cited("web", "https://example.com/a", "A title", snippet, span),
        Cited("web", "https://example.com/ä", "数", snippet, span),
    ]
    assert list(last.citations) == found + [Cited("file", "file-abc")] * kind.cites_files


def test_a_search_that_is_offered_is_used_and_its_page_cited(url: str, kind: Kind) -> None:
    chunks = chunks_of(kind.entry(url), replace(a_prompt("[[words:3]]"), web_search_context_size="low"))
    assert chunks[:-1] == [*searched(kind), *WORDS]
    assert isinstance(chunks[-1], Completed)
    assert [one.target for one in chunks[-1].citations] == ["https://example.com/found"]


@pytest.mark.parametrize(
    ("reason", "signal", "kinds"),
    [
        ("max_output_tokens", LENGTH, {kind.name for kind in KINDS}),
        ("content_filter", FILTERED, {kind.name for kind in KINDS} - {"anthropic_messages"}),
        ("pause", PAUSED, {"anthropic_messages"}),
        ("steered", CUT, {"openai_responses", "azure_openai_responses"}),
    ],
)
def test_an_answer_that_was_cut_short_says_why_where_its_api_can(
    ask: Ask, kind: Kind, reason: str, signal: CompletionSignal, kinds: set[str]
) -> None:
    *deltas, last = ask(f"[[words:3]][[incomplete:{reason}]][[usage:9,8]]")
    assert deltas == WORDS
    if kind.name in kinds:
        assert isinstance(last, Incomplete)
        assert (last.signal, last.usage) == (signal, Usage(9, 8))
    else:
        # A word that nobody knows: a good end of tomorrow, but where an API says beside it that the answer is cut.
        other = Incomplete if "responses" in kind.name else Completed
        assert isinstance(last, other)


def test_what_a_model_says_instead_of_an_answer_is_text_and_told_for_what_it_is(ask: Ask, kind: Kind) -> None:
    *deltas, last = ask("[[words:3]][[refuse]][[usage:9,8]]")
    assert deltas == WORDS
    assert isinstance(last, Incomplete)
    by_whom = REFUSED_BY_FILTER if kind.name == "bedrock_converse" else REFUSED
    assert (last.signal, last.usage) == (by_whom, Usage(9, 8))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        *[(f"[[status:{status}]]", "provider_error") for status in (201, 401, 403, 404, 500, 529)],
        *[(f"[[status:{status}]]", "validation_error") for status in (400, 415, 422)],
        ("[[status:413]]", "context_length_exceeded"),
        *[(f"[[status:{status}]]", "provider_timeout") for status in (408, 504)],
        ("[[status:429]]", "rate_limited"),
        ("[[html]]", "provider_error"),
        ("[[redirect]]", "provider_error"),
        ("[[problem]]", "provider_error"),
    ],
)
def test_a_refusal_is_told_by_its_status(ask: Ask, script: str, code: str) -> None:
    chunks = ask(script)
    assert len(chunks) == 1
    assert (failed(chunks).code, failed(chunks).reached) == (code, True)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_passes_before_the_first_byte_is_not_noticed(ask: Ask, url: str, status: int) -> None:
    before = calls(url)
    assert text_of(ask(f"[[say:at last]][[status:{status}]][[fail-times:2]]{uuid4()}", retries=2)) == "at last"
    assert calls(url) == before + 3


@pytest.mark.parametrize("marker", ["cut", "end", "half", "garbage", "mojibake", "flood"])
@pytest.mark.parametrize("deltas", [0, 2])
def test_a_stream_that_breaks_keeps_its_text_and_is_not_asked_again(
    ask: Ask, url: str, marker: str, deltas: int
) -> None:
    before = calls(url)
    chunks = ask(f"[[words:3]][[{marker}:{deltas}]]", retries=2)
    assert chunks[:-1] == WORDS[:deltas]
    assert failed(chunks).code == "provider_error"
    assert calls(url) == before + 1


@pytest.mark.parametrize("shape", ["failed", "error"])
def test_an_error_within_the_stream_is_its_end(ask: Ask, url: str, shape: str) -> None:
    before = calls(url)
    chunks = ask(f"[[words:3]][[{shape}:server_error]]", retries=2)
    assert chunks[:-1] == WORDS
    assert (failed(chunks).code, failed(chunks).reached) == ("provider_error", True)
    assert calls(url) == before + 1


def test_a_rate_limit_within_the_stream_is_one(ask: Ask) -> None:
    assert failed(ask("[[words:3]][[failed:rate_limit_exceeded]]")).code == "rate_limited"


def test_an_event_that_nobody_knows_is_passed_over(ask: Ask) -> None:
    *deltas, last = ask("[[words:3]][[unknown:1]]")
    assert deltas == WORDS
    assert isinstance(last, Completed)


@pytest.mark.parametrize(
    ("script", "timeouts"),
    [
        ("[[words:3]][[stall:1]]", {"idle_seconds": 0.2}),
        ("[[words:3]][[stall:3]]", {"idle_seconds": 0.2}),
        ("[[words:500]][[delay:10]]", {"total_seconds": 0.3}),
        ("[[words:3]][[first-token:60000]]", {"first_byte_seconds": 0.2, "idle_seconds": 0.2}),
    ],
)
def test_silence_and_a_stream_without_end_are_time_outs(ask: Ask, script: str, timeouts: dict[str, float]) -> None:
    last = failed(ask(script, retries=2, timeouts=Timeouts(**timeouts)))
    assert (last.code, last.reached) == ("provider_timeout", True)


@pytest.mark.parametrize("script", ["[[words:3]][[hold:{}]]", "[[words:9000]][[delay:1]]"])
def test_closing_the_answer_closes_the_providers_connection(url: str, kind: Kind, script: str) -> None:
    asyncio.run(closing_frees_the_connection(url, kind.entry(url), script.format(uuid4())))


def test_cancelling_the_reader_closes_the_providers_connection(url: str, kind: Kind) -> None:
    script = f"[[words:3]][[hold-start:{uuid4()}]]"
    asyncio.run(cancelling_frees_the_connection(url, kind.entry(url), script))


@pytest.mark.parametrize(
    "script", ["[[status:400]]", "[[problem]]", "[[failed:server_error]]", "[[error:server_error]]", "[[redirect]]"]
)
def test_what_a_provider_says_in_an_error_is_nobodys_to_read(
    ask: Ask, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "kept/secret:of+no=known.form")
    auth = {"secret": {"name": "A_KEY"}}
    chunks = ask(f"[[words:2]]{script}", auth=auth)
    told = repr(chunks)
    assert failed(chunks).diagnostic
    assert not [secret for secret in (*SECRETS, "of+no=known", "127.0.0.1") if secret in told]
