"""The adapter against the scripted provider over real sockets; OpenAI's own client is the judge of its wire format."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import openai
import pytest

from minichat.domain.answer_end import LENGTH
from minichat.domain.tool_details import ToolDetails
from minichat.domain.usage import Usage
from minichat.local.process import Child, free_port
from minichat.observability import begin
from minichat.provider_entries import Timeouts
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity
from minichat.providers.prompt import Prompt, PromptMessage
from tests.support.providers.calls import (
    TENANT,
    WAIT_SECONDS,
    a_prompt,
    an_entry,
    answered,
    cancelling_frees_the_connection,
    closing_frees_the_connection,
    failure,
    providers_of,
    text_of,
    until,
)

SHORT = Timeouts(connect_seconds=0.5, first_byte_seconds=0.5, idle_seconds=0.5, total_seconds=5)
WORDS = "word1 word2 word3"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scripted provider in a process of its own, started as the documentation says."""
    port = free_port()
    command = [sys.executable, "-m", "minichat.local.scripted_provider", "--port", str(port)]
    child = Child("the scripted provider", command, Path(tmp_path_factory.mktemp("provider")))
    child.wait_until_it_answers(f"http://127.0.0.1:{port}/health")
    yield f"http://127.0.0.1:{port}"
    child.stop()


def stats(url: str) -> dict[str, int]:
    return dict(httpx2.get(f"{url}/control/stats", trust_env=False).json())


def test_without_a_marker_the_answer_is_about_the_message_in_several_deltas(url: str) -> None:
    chunks = answered(url, "Is it Paris?")
    assert "Is it Paris?" in text_of(chunks)
    assert len(chunks) > 5
    assert isinstance(chunks[-1], Completed)
    assert chunks[-1].usage.known


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("[[say:One  line,\n\u2028 two. ]]What?", "One  line,\n\u2028 two. "),
        ("[[say:]]What?", ""),
        ("[[echo]][[delay:0]]Größe 😀 " + "x" * 5000, "Größe 😀 " + "x" * 5000),
        ("[[words:3]][[delay:0]]", "word1 word2 word3"),
        ("[[words:2]][[first-token:30]][[delay:5]]", "word1 word2"),
    ],
)
def test_the_text_is_what_the_markers_say(url: str, script: str, text: str) -> None:
    chunks = answered(url, script)
    assert text_of(chunks) == text
    assert isinstance(chunks[-1], Completed)


def test_only_the_last_message_of_the_user_is_a_script(url: str) -> None:
    async def run() -> list[ProviderChunk]:
        history = (PromptMessage("user", "[[status:500]]"), PromptMessage("assistant", "[[html]]"))
        prompt = Prompt("m", "[[cut:0]]", (*history, PromptMessage("user", "[[say:fine]]")), max_output_tokens=64)
        async with providers_of(an_entry(url)) as providers:
            return [chunk async for chunk in providers.stream(TENANT, "it", prompt)]

    assert text_of(asyncio.run(run())) == "fine"


def test_usage_is_as_told_or_counted_or_absent(url: str) -> None:
    assert answered(url, "[[say:ok]][[usage:100,20]]")[-1] == Completed(Usage(100, 20), _any_id(url))
    counted = answered(url, "[[say:12345]]")[-1]
    assert isinstance(counted, Completed)
    assert counted.usage.output_tokens == 2
    assert answered(url, "[[say:ok]][[no-usage]]")[-1] == Completed(Usage(), _any_id(url))


def _any_id(url: str) -> str:
    return f"resp_{stats(url)['calls']:032x}"


def test_tools_are_told_before_the_text(url: str) -> None:
    chunks = answered(url, "[[say:found]][[tool:web_search]][[tool:code_interpreter]][[query:moons]][[output:4]]")
    assert chunks[:5] == [
        ToolActivity("web_search", "start"),
        ToolActivity("web_search", "done", ToolDetails(query="moons")),
        ToolActivity("code_interpreter", "start"),
        ToolActivity("code_interpreter", "done"),  # what it printed is told to who asks for it
        TextDelta("found"),
    ]


def test_an_answer_that_was_cut_short_says_why(url: str) -> None:
    last = answered(url, "[[say:half]][[incomplete:max_output_tokens]][[usage:9,8]]")[-1]
    assert isinstance(last, Incomplete)
    assert (last.signal, last.usage) == (LENGTH, Usage(9, 8))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("[[status:429]]", "rate_limited"),
        ("[[status:408]]", "provider_timeout"),
        ("[[status:504]]", "provider_timeout"),
        ("[[status:400]]", "validation_error"),
        ("[[status:401]]", "provider_error"),
        ("[[status:500]]", "provider_error"),
        ("[[status:201]]", "provider_error"),
        ("[[html]]", "provider_error"),
        ("[[redirect]]", "provider_error"),
    ],
)
def test_a_refusal_is_told_by_its_status_and_says_nothing_secret(url: str, script: str, code: str) -> None:
    failed = failure(url, script)
    assert (failed.code, failed.reached) == (code, True)
    assert not any(word in failed.diagnostic for word in ("sk-", "http", "example.com"))


def test_a_redirect_is_not_followed(url: str) -> None:
    assert failure(url, "[[redirect]]").diagnostic.startswith("status 307")


@pytest.mark.parametrize(
    ("script", "deltas"),
    [
        ("[[cut:0]]", 0),
        ("[[cut:2]]", 2),
        ("[[end:0]]", 0),
        ("[[end:2]]", 2),
        ("[[end:9]]", 3),
        ("[[garbage:0]]", 0),
        ("[[garbage:2]]", 2),
        ("[[failed:server_error]]", 3),
        ("[[error:server_error]]", 3),
    ],
)
def test_a_stream_that_breaks_keeps_its_text_and_is_not_asked_again(url: str, script: str, deltas: int) -> None:
    before = stats(url)["calls"]
    chunks = answered(url, f"[[words:3]]{script}", retries=2)
    assert len(chunks) == deltas + 1
    assert isinstance(chunks[-1], Failed)
    assert chunks[-1].code == "provider_error"
    assert stats(url)["calls"] == before + 1


def test_a_failure_tells_what_was_used_until_then(url: str) -> None:
    assert failure(url, "[[words:2]][[failed:server_error]][[usage:7,3]]").usage == Usage(7, 3)


def test_an_id_in_a_failure_does_not_reach_the_diagnostic(url: str) -> None:
    diagnostic = failure(url, "[[failed:server_error]]").diagnostic
    assert diagnostic.startswith("server_error: As told with no key: [url], [credential], [provider_id], [provider_id]")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_passes_is_not_noticed(url: str, status: int) -> None:
    before = stats(url)["calls"]
    chunks = answered(url, f"[[say:at last]][[status:{status}]][[fail-times:2]]{uuid4()}", retries=2)
    assert text_of(chunks) == "at last"
    assert stats(url)["calls"] == before + 3


@pytest.mark.parametrize(
    ("script", "counted"),
    [
        ("[[say:at last]][[status:503]][[fail-times:2]]", {("provider_retries_total", "provider_error"): 2}),
        ("[[status:400]]", {("provider_errors_total", "validation_error"): 1}),
        ("[[words:3]][[cut:1]]", {("provider_errors_total", "provider_error"): 1}),
        (
            "[[status:429]]",
            {("provider_retries_total", "rate_limited"): 2, ("provider_errors_total", "rate_limited"): 1},
        ),
    ],
)
def test_failed_requests_are_counted_and_repeated_ones_apart(
    url: str, script: str, counted: dict[tuple[str, str], int]
) -> None:
    event = begin()
    answered(url, script + str(uuid4()), retries=2)
    by = [(one.name, dict(one.dimensions)) for one in event.measurements]
    assert Counter((name, said["code"]) for name, said in by) == counted
    assert {said["provider"] for _, said in by} == {"it"}


@pytest.mark.parametrize(("script", "calls"), [("[[status:503]]", 3), ("[[status:400]]", 1), ("[[redirect]]", 1)])
def test_what_does_not_pass_is_asked_as_often_as_the_entry_allows(url: str, script: str, calls: int) -> None:
    before = stats(url)["calls"]
    failure(url, script, retries=2)
    assert stats(url)["calls"] == before + calls


def test_a_short_retry_after_is_waited_for(url: str) -> None:
    started = time.monotonic()
    chunks = answered(url, f"[[say:ok]][[status:429]][[retry-after:1]][[fail-times:1]]{uuid4()}", retries=1)
    assert text_of(chunks) == "ok"
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("patience", [{}, {"timeouts": SHORT}])
def test_a_retry_after_longer_than_anyone_waits_ends_the_call_at_once(url: str, patience: dict[str, Any]) -> None:
    before = stats(url)["calls"]
    seconds = 1 if patience else 30
    assert failure(url, f"[[status:429]][[retry-after:{seconds}]]", retries=2, **patience).code == "rate_limited"
    assert stats(url)["calls"] == before + 1


def test_a_provider_that_nobody_can_connect_to_was_not_reached() -> None:
    failed = failure(f"http://127.0.0.1:{free_port()}", "hi", retries=1)
    assert (failed.code, failed.reached) == ("provider_error", False)


@pytest.mark.parametrize(
    ("script", "timeouts"),
    [
        ("[[words:3]][[stall:1]]", {"first_byte_seconds": 5, "idle_seconds": 0.2}),
        ("[[words:3]][[stall:1]]", {"first_byte_seconds": 0.2, "idle_seconds": 0.4}),
        ("[[words:500]][[delay:10]]", {"total_seconds": 0.3}),
        ("[[words:3]][[first-token:60000]]", {"idle_seconds": 0.2}),
    ],
)
def test_silence_and_a_stream_without_end_are_time_outs(url: str, script: str, timeouts: dict[str, float]) -> None:
    failed = failure(url, script, retries=2, timeouts=Timeouts(**timeouts))
    assert (failed.code, failed.reached) == ("provider_timeout", True)


def test_a_stream_may_be_slower_than_its_first_byte_had_to_be(url: str) -> None:
    patience = Timeouts(first_byte_seconds=0.6, idle_seconds=5)
    assert text_of(answered(url, "[[words:2]][[delay:900]]", timeouts=patience)) == "word1 word2"


@pytest.mark.parametrize("script", ["[[words:3]][[hold:{}]]", "[[words:9000]][[delay:1]]", "[[words:3]][[stall:1]]"])
def test_closing_the_answer_closes_the_providers_connection(url: str, script: str) -> None:
    asyncio.run(closing_frees_the_connection(url, an_entry(url), script.format(uuid4())))


@pytest.mark.parametrize("script", ["[[words:3]][[hold:{}]]", "[[words:3]][[hold-start:{}]]"])
def test_cancelling_the_reader_closes_the_providers_connection(url: str, script: str) -> None:
    asyncio.run(cancelling_frees_the_connection(url, an_entry(url), script.format(uuid4())))


@pytest.mark.parametrize("marker", ["hold", "hold-start"])
def test_a_held_answer_goes_on_when_it_is_released_also_in_advance(url: str, marker: str) -> None:
    name = uuid4().hex
    script = f"[[words:3]][[{marker}:{name}]]"

    async def run() -> None:
        async with (
            asyncio.timeout(WAIT_SECONDS),
            httpx2.AsyncClient(trust_env=False) as client,
            providers_of(an_entry(url)) as providers,
            aclosing(providers.stream(TENANT, "it", a_prompt(script))) as chunks,
        ):
            if marker == "hold":
                assert await anext(chunks) == TextDelta("word1 ")
            following = asyncio.ensure_future(anext(chunks))
            await until(url, lambda seen: seen["open"] == 1)
            assert not following.done()
            await client.post(f"{url}/control/release/{name}")
            assert isinstance(await following, TextDelta)

    asyncio.run(run())
    assert text_of(answered(url, script)) == WORDS


def test_two_hundred_streams_at_once(url: str) -> None:
    name = uuid4().hex
    script = f"[[words:5]][[delay:0]][[hold:{name}]]"

    async def run() -> list[str]:
        async with providers_of(an_entry(url)) as providers, asyncio.timeout(60):

            async def one() -> str:
                return text_of([chunk async for chunk in providers.stream(TENANT, "it", a_prompt(script))])

            reading = asyncio.gather(*(one() for _ in range(200)))
            await until(url, lambda seen: seen["open"] == 200)
            async with httpx2.AsyncClient(trust_env=False) as client:
                await client.post(f"{url}/control/release/{name}")
            return await reading

    assert asyncio.run(run()) == ["word1 word2 word3 word4 word5"] * 200


@pytest.fixture
def official(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=WAIT_SECONDS) as client:
        yield client


@pytest.mark.parametrize(
    "script", ["hello there", "[[say:Größe \u2028 😀]]", "[[words:3]][[tool:web_search]]", "[[say:]]"]
)
def test_the_official_client_reassembles_the_same_text(url: str, official: openai.OpenAI, script: str) -> None:
    expected = text_of(answered(url, script))
    deltas = []
    numbers = []
    with official.responses.create(model="small-1", input=script, stream=True) as events:
        for event in events:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
            if event.type == "response.completed":
                final = event.response
    assert "".join(deltas) == final.output_text == expected
    assert numbers == list(range(len(numbers)))
    with official.responses.stream(model="small-1", input=script) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == expected
    assert official.responses.create(model="small-1", input=script).output_text == expected


def test_every_event_has_the_shape_that_the_official_types_demand(official: openai.OpenAI) -> None:
    # The client itself does not validate what it reads; its types do when asked.
    script = "[[words:2]][[tool:web_search]][[tool:file_search]][[tool:code_interpreter]]"
    httpx2.put(f"{official.base_url.copy_with(path='/control/files/file-1')}", trust_env=False).raise_for_status()
    store = f"{official.base_url.copy_with(path='/control/vector_stores/vs_1')}"
    httpx2.put(store, json={"files": ["file-1"]}, trust_env=False).raise_for_status()
    asked: dict[str, Any] = {
        "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
        "include": ["file_search_call.results", "code_interpreter_call.outputs"],
    }
    for ending in ("", "[[incomplete:max_output_tokens]]", "[[failed:server_error]]"):
        with official.responses.create(model="small-1", input=script + ending, stream=True, **asked) as events:
            seen = [type(event).model_validate(event.to_dict(), strict=True).type for event in events]
        assert seen[0] == "response.created"
        assert seen[-1].removeprefix("response.") in {"completed", "incomplete", "failed"}


def test_the_official_async_client_reads_it_too(url: str) -> None:
    async def run() -> str:
        async with (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
            client.responses.stream(model="small-1", input="[[words:3]]") as stream,
        ):
            return (await stream.get_final_response()).output_text

    assert asyncio.run(run()) == WORDS


def test_the_official_client_sees_errors_as_openais(official: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        official.responses.create(model="small-1", input="[[status:429]]")
    with official.responses.create(model="small-1", input="[[failed:server_error]]", stream=True) as events:
        last = list(events)[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
