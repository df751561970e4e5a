"""The adapter against the scripted provider over real sockets; and OpenAI's own client, as the judge of its wire format.

Where the provider must break the protocol itself, a socket answers with prepared bytes.
"""

import asyncio
import gzip
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import openai
import pytest

from minichat import settings
from minichat.domain.usage import Usage
from minichat.local.process import Child, free_port
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta, ToolActivity
from minichat.providers.prompt import Prompt, PromptMessage
from minichat.providers.registry import Providers

WAIT_SECONDS = 10
SHORT = settings.Timeouts(connect_seconds=0.5, first_byte_seconds=0.5, idle_seconds=0.5, total_seconds=5)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scripted provider in a process of its own, started as the documentation says."""
    port = free_port()
    command = [sys.executable, "-m", "minichat.local.scripted_provider", "--port", str(port)]
    child = Child("the scripted provider", command, Path(tmp_path_factory.mktemp("provider")))
    child.wait_until_it_answers(f"http://127.0.0.1:{port}/health")
    yield f"http://127.0.0.1:{port}"
    child.stop()


def an_entry(url: str, **said: Any) -> settings.Provider:
    return settings.Provider(**{"base_url": url, "allow_insecure": True, "retries": 0} | said)


def a_prompt(text: str) -> Prompt:
    return Prompt("small-1", "Be brief.", (PromptMessage("user", text),), max_output_tokens=64)


@asynccontextmanager
async def providers_of(entry: settings.Provider) -> AsyncIterator[Providers]:
    providers = Providers({"it": entry})
    try:
        yield providers
    finally:
        await providers.aclose()


def answered(url: str, text: str, **said: Any) -> list[ProviderChunk]:
    """Every chunk of one call; the last one is the only terminal one."""

    async def run() -> list[ProviderChunk]:
        async with asyncio.timeout(WAIT_SECONDS), providers_of(an_entry(url, **said)) as providers:
            return [chunk async for chunk in providers.stream("it", a_prompt(text))]

    chunks = asyncio.run(run())
    assert [chunk for chunk in chunks if isinstance(chunk, Completed | Incomplete | Failed)] == chunks[-1:]
    return chunks


def text_of(chunks: list[ProviderChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


def failure(url: str, text: str, **said: Any) -> Failed:
    last = answered(url, text, **said)[-1]
    assert isinstance(last, Failed)
    return last


def stats(url: str) -> dict[str, int]:
    return dict(httpx2.get(f"{url}/control/stats", trust_env=False).json())


async def until(url: str, holds: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """What the provider has seen, once it is as expected."""
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client, asyncio.timeout(WAIT_SECONDS):
        while not holds(found := (await client.get("/control/stats")).json()):
            await asyncio.sleep(0.01)
    return dict(found)


# Answers


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
            return [chunk async for chunk in providers.stream("it", prompt)]

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
    chunks = answered(url, "[[say:found]][[tool:web_search]][[tool:code_interpreter]]")
    assert chunks[:5] == [
        ToolActivity("web_search", "start"),
        ToolActivity("web_search", "done"),
        ToolActivity("code_interpreter", "start"),
        ToolActivity("code_interpreter", "done"),
        TextDelta("found"),
    ]


def test_an_answer_that_was_cut_short_says_why(url: str) -> None:
    last = answered(url, "[[say:half]][[incomplete:max_output_tokens]][[usage:9,8]]")[-1]
    assert isinstance(last, Incomplete)
    assert (last.reason, last.usage) == ("max_output_tokens", Usage(9, 8))


# Failures


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("[[status:429]]", "rate_limited"),
        ("[[status:408]]", "provider_timeout"),
        ("[[status:504]]", "provider_timeout"),
        ("[[status:400]]", "provider_error"),
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
    assert failure(url, "[[failed:server_error]]").diagnostic == "server_error: As told, in [provider_id]."


# Trying again


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_passes_is_not_noticed(url: str, status: int) -> None:
    before = stats(url)["calls"]
    chunks = answered(url, f"[[say:at last]][[status:{status}]][[fail-times:2]]{uuid4()}", retries=2)
    assert text_of(chunks) == "at last"
    assert stats(url)["calls"] == before + 3


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


# Time


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
    failed = failure(url, script, retries=2, timeouts=settings.Timeouts(**timeouts))
    assert (failed.code, failed.reached) == ("provider_timeout", True)


def test_a_stream_may_be_slower_than_its_first_byte_had_to_be(url: str) -> None:
    patience = settings.Timeouts(first_byte_seconds=0.6, idle_seconds=5)
    assert text_of(answered(url, "[[words:2]][[delay:900]]", timeouts=patience)) == "word1 word2"


def test_all_attempts_share_the_first_bytes_time() -> None:
    unavailable = b"HTTP/1.1 503 X\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    started = time.monotonic()
    patience = settings.Timeouts(first_byte_seconds=1.5)
    chunks, calls = asyncio.run(_from_bytes([unavailable, None], retries=2, timeouts=patience))
    took = time.monotonic() - started
    assert isinstance(chunks[-1], Failed)
    assert (chunks[-1].code, calls) == ("provider_timeout", 2)
    # A second attempt with a time of its own would end after 2.6 s at the earliest.
    assert 1.5 <= took < 2.4


# Bytes that no good provider sends


async def _from_bytes(replies: list[bytes | None], **said: Any) -> tuple[list[ProviderChunk], int]:
    """What the adapter makes of prepared replies, one per connection (None: silence), and how many it asked for."""
    calls, left = 0, asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await reader.readuntil(b"\r\n\r\n")
        raw = replies[min(calls, len(replies)) - 1]
        if raw is None:
            await left.wait()
        else:
            writer.write(raw)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, asyncio.timeout(WAIT_SECONDS), providers_of(an_entry(url, **said)) as providers:
        chunks = [chunk async for chunk in providers.stream("it", a_prompt("hi"))]
        left.set()
    return chunks, calls


DONE = b'event: response.completed\r\rdata: {"type": "response.completed", "response": {"id": "resp_1"}}\r\r'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; charset=utf-8\r\nconnection: close\r\n"


def test_an_answer_compressed_unasked_is_read() -> None:
    raw = STREAM + b"content-encoding: gzip\r\n\r\n" + gzip.compress(DONE)
    assert asyncio.run(_from_bytes([raw]))[0] == [Completed(Usage(), "resp_1")]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not HTTP at all\r\n\r\n",
        STREAM + b"\r\n",
        STREAM + b"\r\ndata: \xff\xfe\n\n",
        STREAM + b"content-encoding: gzip\r\n\r\nnot compressed",
        STREAM + b"\r\nevent: x\ndata: " + b"x" * 5_000_000,
        STREAM + b'\r\n\r\nevent: response.completed\ndata: {"response": {}}',
        STREAM + b"transfer-encoding: chunked\r\n\r\nnot a length\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_a_broken_answer_is_one_failure(raw: bytes) -> None:
    chunks, calls = asyncio.run(_from_bytes([raw], retries=2))
    assert [type(chunk) for chunk in chunks] == [Failed]
    assert isinstance(chunks[0], Failed)
    assert (chunks[0].code, calls) == ("provider_error", 1)


def test_an_error_page_that_never_ends_does_not_hold_up_its_status() -> None:
    raw = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 100_000
    chunks, _ = asyncio.run(_from_bytes([raw]))
    assert isinstance(chunks[-1], Failed)
    assert chunks[-1].code == "rate_limited"
    assert len(chunks[-1].diagnostic) <= 200


# Connections


@pytest.mark.parametrize("script", ["[[words:3]][[hold:{}]]", "[[words:9000]][[delay:1]]", "[[words:3]][[stall:1]]"])
def test_closing_the_answer_closes_the_providers_connection(url: str, script: str) -> None:
    async def run() -> None:
        before = await until(url, lambda seen: seen["open"] == 0)
        async with providers_of(an_entry(url)) as providers:
            async with aclosing(providers.stream("it", a_prompt(script.format(uuid4())))) as chunks:
                assert isinstance(await anext(chunks), TextDelta)
                await until(url, lambda seen: seen["open"] == 1)
            # The client is still open: it is the answer's end that closed the connection.
            after = await until(url, lambda seen: seen["open"] == 0)
        assert after["broken_off"] == before["broken_off"] + 1

    asyncio.run(run())


@pytest.mark.parametrize("script", ["[[words:3]][[hold:{}]]", "[[words:3]][[hold-start:{}]]"])
def test_cancelling_the_reader_closes_the_providers_connection(url: str, script: str) -> None:
    async def run() -> None:
        before = await until(url, lambda seen: seen["open"] == 0)
        async with providers_of(an_entry(url)) as providers:

            async def read() -> None:
                async with aclosing(providers.stream("it", a_prompt(script.format(uuid4())))) as chunks:
                    async for _ in chunks:
                        pass

            reading = asyncio.create_task(read())
            await until(url, lambda seen: seen["open"] == 1)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            after = await until(url, lambda seen: seen["open"] == 0)
        assert after["broken_off"] == before["broken_off"] + 1

    asyncio.run(run())


@pytest.mark.parametrize("marker", ["hold", "hold-start"])
def test_a_held_answer_goes_on_when_it_is_released_also_in_advance(url: str, marker: str) -> None:
    name = uuid4().hex
    script = f"[[words:3]][[{marker}:{name}]]"

    async def run() -> None:
        async with providers_of(an_entry(url)) as providers, asyncio.timeout(WAIT_SECONDS):
            async with aclosing(providers.stream("it", a_prompt(script))) as chunks:
                if marker == "hold":
                    assert await anext(chunks) == TextDelta("word1 ")
                following = asyncio.ensure_future(anext(chunks))
                await until(url, lambda seen: seen["open"] == 1)
                assert not following.done()
                async with httpx2.AsyncClient(trust_env=False) as client:
                    await client.post(f"{url}/control/release/{name}")
                assert isinstance(await following, TextDelta)

    asyncio.run(run())
    assert text_of(answered(url, script)) == "word1 word2 word3"


def test_two_hundred_streams_at_once(url: str) -> None:
    name = uuid4().hex
    script = f"[[words:5]][[delay:0]][[hold:{name}]]"

    async def run() -> list[str]:
        async with providers_of(an_entry(url)) as providers, asyncio.timeout(30):

            async def one() -> str:
                return text_of([chunk async for chunk in providers.stream("it", a_prompt(script))])

            reading = asyncio.gather(*(one() for _ in range(200)))
            await until(url, lambda seen: seen["open"] == 200)
            async with httpx2.AsyncClient(trust_env=False) as client:
                await client.post(f"{url}/control/release/{name}")
            return await reading

    assert asyncio.run(run()) == ["word1 word2 word3 word4 word5"] * 200


# OpenAI's own client


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
    for ending in ("", "[[incomplete:max_output_tokens]]", "[[failed:server_error]]"):
        with official.responses.create(model="small-1", input=script + ending, stream=True) as events:
            seen = [type(event).model_validate(event.to_dict(), strict=True).type for event in events]
        assert seen[0] == "response.created"
        assert seen[-1].removeprefix("response.") in {"completed", "incomplete", "failed"}


def test_the_official_async_client_reads_it_too(url: str) -> None:
    async def run() -> str:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            async with client.responses.stream(model="small-1", input="[[words:3]]") as stream:
                return (await stream.get_final_response()).output_text

    assert asyncio.run(run()) == "word1 word2 word3"


def test_the_official_client_sees_errors_as_openais(official: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        official.responses.create(model="small-1", input="[[status:429]]")
    with official.responses.create(model="small-1", input="[[failed:server_error]]", stream=True) as events:
        last = list(events)[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"


# Keys


def an_auth(name: str, source: str = "env") -> dict[str, Any]:
    return {"secret": {"source": source, "name": name}}


def test_a_missing_key_names_the_setting_and_nothing_is_sent(url: str) -> None:
    before = stats(url)["calls"]
    failed = failure(url, "hi", auth=an_auth("MISSING_PROVIDER_KEY"))
    assert (failed.code, failed.reached) == ("provider_error", False)
    assert "providers.it.auth.secret" in failed.diagnostic
    assert "MISSING_PROVIDER_KEY" in failed.diagnostic
    assert stats(url)["calls"] == before


def test_an_unknown_provider_is_a_failure() -> None:
    async def run() -> list[ProviderChunk]:
        async with providers_of(an_entry("http://127.0.0.1:9")) as providers:
            return [chunk async for chunk in providers.stream("another", a_prompt("hi"))]

    assert asyncio.run(run()) == [Failed("provider_error", "no provider 'another' is configured", reached=False)]


async def _keys_sent(
    entry: dict[str, Any], statuses: list[int], between: Callable[[], None] = lambda: None
) -> list[str]:
    """The key header of one call per status, each answered with it."""
    seen: list[str] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.extend(line for line in head.split("\r\n") if line.lower().startswith(("authorization:", "api-key:")))
        writer.write(f"HTTP/1.1 {statuses[len(seen) - 1]} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, asyncio.timeout(WAIT_SECONDS), providers_of(an_entry(url, **entry)) as providers:
        for _ in statuses:
            assert [chunk async for chunk in providers.stream("it", a_prompt("hi"))]
            between()
    return seen


def test_the_key_goes_where_the_entry_says_without_its_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_KEY", "k-1\n")
    assert asyncio.run(_keys_sent({"auth": an_auth("SCRIPTED_KEY")}, [400])) == ["Authorization: Bearer k-1"]
    azure = an_auth("SCRIPTED_KEY") | {"header": "api-key", "prefix": ""}
    assert asyncio.run(_keys_sent({"auth": azure}, [400])) == ["api-key: k-1"]


def test_a_key_is_read_once_and_again_after_it_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter("bcd")
    monkeypatch.setenv("SCRIPTED_KEY", "a")
    seen = asyncio.run(
        _keys_sent(
            {"auth": an_auth("SCRIPTED_KEY")},
            [400, 401, 400],
            between=lambda: monkeypatch.setenv("SCRIPTED_KEY", next(names)),
        )
    )
    assert [line[-1] for line in seen] == ["a", "a", "c"]


def test_a_key_that_no_header_can_carry_is_a_failure(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_KEY", "schlüssel")
    failed = failure(url, "hi", auth=an_auth("SCRIPTED_KEY"))
    assert (failed.code, failed.reached) == ("provider_error", False)
    assert "schl" not in failed.diagnostic


def test_a_key_comes_from_secrets_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3  # noqa: PLC0415  moto patches what is imported under it
    from moto import mock_aws  # noqa: PLC0415

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("secretsmanager")
        client.create_secret(Name="minichat/key", SecretString="from-aws")
        seen = asyncio.run(_keys_sent({"auth": an_auth("minichat/key", "secretsmanager")}, [400, 400]))
        missing = failure("http://127.0.0.1:9", "hi", auth=an_auth("minichat/other", "secretsmanager"))
    assert seen == ["Authorization: Bearer from-aws"] * 2
    assert "Secrets Manager secret minichat/other" in missing.diagnostic


def test_neither_client_nor_keys_are_paid_for_at_import() -> None:
    program = "import sys, minichat.providers.registry; print(sorted({'boto3', 'botocore'} & sys.modules.keys()))"
    child = asyncio.run(_output(program))
    assert json.loads(child.replace("'", '"')) == []


async def _output(program: str) -> str:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return said.decode()
