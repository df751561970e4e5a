"""The adapter against sockets that answer with prepared bytes: what no good provider sends, and which key it gets."""

import asyncio
import gzip
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import MetadataRetrievalError
from botocore.session import Session

from minichat import observability
from minichat.domain.identity import TenantId
from minichat.domain.usage import Usage
from minichat.provider_entries import Timeouts
from minichat.providers import bedrock_converse, credentials
from minichat.providers.chunks import Completed, Failed, ProviderChunk, TextDelta
from tests.support.providers.calls import TENANT, WAIT_SECONDS, a_prompt, an_entry, failure, from_bytes, providers_of

ADAPTERS = ("openai_responses", "openai_chat", "anthropic_messages", "bedrock_converse")
KEY_HEADERS = ("authorization:", "api-key:", "x-api-key:", "cookie:")
NOWHERE = "http://127.0.0.1:9"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


DONE = b'event: response.completed\r\rdata: {"type": "response.completed", "response": {"id": "resp_1"}}\r\r'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; charset=utf-8\r\nconnection: close\r\n"


def test_an_answer_compressed_unasked_is_read() -> None:
    raw = STREAM + b"content-encoding: gzip\r\n\r\n" + gzip.compress(DONE)
    assert asyncio.run(from_bytes([raw]))[0] == [Completed(Usage(), "resp_1")]


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
    chunks, calls = asyncio.run(from_bytes([raw], retries=2))
    assert [type(chunk) for chunk in chunks] == [Failed]
    assert isinstance(chunks[0], Failed)
    assert (chunks[0].code, calls) == ("provider_error", 1)


CHATTED = b'data: {"id": "c", "choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\n'
MESSAGED = (
    b'data: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}}\n\n'
    b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}\n\n'
)


@pytest.mark.parametrize(("kind", "said"), [("openai_chat", CHATTED), ("anthropic_messages", MESSAGED)])
def test_an_answer_that_said_why_it_ends_is_whole_also_when_its_stream_breaks(kind: str, said: bytes) -> None:
    raw = STREAM + b"content-length: 9999\r\n\r\n" + said
    text, last = asyncio.run(from_bytes([raw], kind=kind))[0]
    assert text == TextDelta("hi")
    assert isinstance(last, Completed)


def test_the_connection_of_a_whole_answer_is_used_again() -> None:
    """The answer's last word comes before the last bytes of its response."""

    async def run() -> None:
        connections, left = 0, asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            with suppress(asyncio.IncompleteReadError):
                while head := await reader.readuntil(b"\r\n\r\n"):
                    length = re.search(rb"(?i)content-length: (\d+)", head)
                    assert length is not None
                    await reader.readexactly(int(length[1]))
                    writer.write(STREAM.replace(b"connection: close", b"transfer-encoding: chunked") + b"\r\n")
                    writer.write(b"%x\r\n%s\r\n" % (len(DONE), DONE))
                    await asyncio.sleep(0.01)  # it comes in a segment of its own
                    writer.write(b"0\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            left.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, asyncio.timeout(WAIT_SECONDS):
            async with providers_of(an_entry(url)) as providers:
                for _ in range(3):
                    async with aclosing(providers.stream(TENANT, "it", a_prompt("hi"))) as chunks:
                        assert await anext(chunks) == Completed(Usage(), "resp_1")
            await left.wait()
        assert connections == 1

    asyncio.run(run())


def test_a_cookie_is_not_sent_back() -> None:
    async def run() -> list[str]:
        async with recorded() as (seen, url), providers_of(an_entry(url)) as providers:
            for _ in range(2):
                (chunk,) = [chunk async for chunk in providers.stream(TENANT, "it", a_prompt("hi"))]
                assert chunk == Failed("validation_error", "status 400: ", refused=True)
        return seen

    assert asyncio.run(run()) == []


@pytest.mark.parametrize("insecure", [True, False])
def test_a_host_that_is_no_name_is_a_failure(insecure: bool) -> None:
    failed = failure(f"https://{'a' * 70}.example", "hi", allow_insecure=insecure)
    assert (failed.code, failed.reached) == ("provider_error", False)


def test_an_error_page_that_never_ends_does_not_hold_up_its_status() -> None:
    raw = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 100_000
    chunks, _ = asyncio.run(from_bytes([raw]))
    assert isinstance(chunks[-1], Failed)
    assert chunks[-1].code == "rate_limited"
    assert len(chunks[-1].diagnostic) <= 200


def test_all_attempts_share_the_first_bytes_time() -> None:
    unavailable = b"HTTP/1.1 503 X\r\nretry-after: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    started = time.monotonic()
    patience = Timeouts(first_byte_seconds=3)
    chunks, calls = asyncio.run(from_bytes([unavailable, None], retries=2, timeouts=patience))
    took = time.monotonic() - started
    assert isinstance(chunks[-1], Failed)
    assert (chunks[-1].code, calls) == ("provider_timeout", 2)
    # A second attempt with a time of its own would end after five seconds at the earliest.
    assert 3 <= took < 5


def an_auth(name: str, source: str = "env") -> dict[str, Any]:
    return {"secret": {"source": source, "name": name}}


def test_a_missing_key_names_the_setting_and_nothing_is_sent() -> None:
    failed = failure(NOWHERE, "hi", auth=an_auth("MISSING_PROVIDER_KEY"))
    assert (failed.code, failed.reached) == ("provider_error", False)
    assert "providers.it.auth.secret: environment variable MISSING_PROVIDER_KEY" in failed.diagnostic


def test_an_unknown_provider_is_a_failure() -> None:
    async def run() -> list[ProviderChunk]:
        async with providers_of(an_entry(NOWHERE)) as providers:
            return [chunk async for chunk in providers.stream(TENANT, "another", a_prompt("hi"))]

    assert asyncio.run(run()) == [Failed("provider_error", "no provider 'another' is configured", reached=False)]


@asynccontextmanager
async def recorded(statuses: Sequence[int] = ()) -> AsyncIterator[tuple[list[str], str]]:
    """The key header of each request to a server, answered with these statuses in turn and then 400; its address."""
    seen: list[str] = []
    left = iter(statuses)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.extend(line for line in head.split("\r\n") if line.lower().startswith(KEY_HEADERS))
        status = next(left, 400)
        writer.write(f"HTTP/1.1 {status} X\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        yield seen, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _keys_sent(
    entry: dict[str, Any], statuses: list[int], between: Callable[[], None] = lambda: None
) -> list[str]:
    """The key header of each request, answered with these statuses in turn: calls until none is left."""
    async with (
        recorded(statuses) as (seen, url),
        asyncio.timeout(WAIT_SECONDS),
        providers_of(an_entry(url, **entry)) as providers,
    ):
        while len(seen) < len(statuses):
            assert [chunk async for chunk in providers.stream(TENANT, "it", a_prompt("hi"))]
            between()
    return seen


def test_the_key_goes_where_the_entry_says_without_its_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_KEY", "k-1\n")
    assert asyncio.run(_keys_sent({"auth": an_auth("SCRIPTED_KEY")}, [400])) == ["Authorization: Bearer k-1"]
    azure = an_auth("SCRIPTED_KEY") | {"header": "api-key", "prefix": ""}
    assert asyncio.run(_keys_sent({"auth": azure}, [400])) == ["api-key: k-1"]


def test_a_key_is_read_once_and_again_when_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter("bcd")
    monkeypatch.setenv("SCRIPTED_KEY", "a")
    seen = asyncio.run(
        _keys_sent(
            {"auth": an_auth("SCRIPTED_KEY")},
            [400, 401, 400, 400],
            between=lambda: monkeypatch.setenv("SCRIPTED_KEY", next(names)),
        )
    )
    # The third request is the second call's: it was asked again, before a byte of an answer, with the key of that time.
    assert [line[-1] for line in seen] == ["a", "a", "b", "b"]


def test_a_refused_key_is_tried_again_only_when_it_has_changed_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_KEY", "a")
    stays = asyncio.run(_keys_sent({"auth": an_auth("SCRIPTED_KEY")}, [401, 401]))
    assert [line[-1] for line in stays] == ["a", "a"]
    keys = iter("abcde")
    monkeypatch.setattr(credentials, "read", lambda _: next(keys))
    asked = asyncio.run(_keys_sent({"auth": an_auth("SCRIPTED_KEY"), "retries": 2}, [401, 401]))
    assert [line[-1] for line in asked] == ["a", "b"]


@pytest.mark.parametrize("key", ["schlüssel", "schl\nuessel", "schl\x07"])
def test_a_key_that_no_header_can_carry_is_a_failure(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("SCRIPTED_KEY", key)
    failed = failure(NOWHERE, "hi", auth=an_auth("SCRIPTED_KEY"))
    assert (failed.code, failed.reached) == ("provider_error", False)
    assert "no request can be made" in failed.diagnostic
    assert "schl" not in failed.diagnostic


def test_a_key_comes_from_secrets_manager_or_the_parameter_store(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3  # noqa: PLC0415  moto patches what is imported under it
    from moto import mock_aws  # noqa: PLC0415

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("secretsmanager").create_secret(Name="minichat/key", SecretString="from-aws")
        boto3.client("ssm").put_parameter(Name="/minichat/key", Value="from-ssm", Type="SecureString")
        secret = asyncio.run(_keys_sent({"auth": an_auth("minichat/key", "secretsmanager")}, [400, 400]))
        parameter = asyncio.run(_keys_sent({"auth": an_auth("/minichat/key", "ssm")}, [400, 400]))
        no_secret = failure(NOWHERE, "hi", auth=an_auth("minichat/other", "secretsmanager"))
        no_parameter = failure(NOWHERE, "hi", auth=an_auth("/minichat/other", "ssm"))
    assert secret == ["Authorization: Bearer from-aws"] * 2
    assert parameter == ["Authorization: Bearer from-ssm"] * 2
    assert "Secrets Manager secret minichat/other" in no_secret.diagnostic
    assert "Parameter Store parameter /minichat/other" in no_parameter.diagnostic


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("openai_responses", "Authorization: Bearer k-1"),
        ("azure_openai_responses", "api-key: k-1"),
        ("openai_chat", "Authorization: Bearer k-1"),
        ("anthropic_messages", "x-api-key: k-1"),
        ("bedrock_converse", "Authorization: Bearer k-1"),
    ],
)
def test_each_kind_has_its_header_for_the_key(kind: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_KEY", "k-1")
    region = {"region": "us-east-1"} if kind == "bedrock_converse" else {}
    assert asyncio.run(_keys_sent({"kind": kind, "auth": an_auth("SCRIPTED_KEY"), **region}, [400])) == [line]


def test_bedrock_without_a_key_is_signed_for_by_the_role() -> None:
    (sent,) = asyncio.run(_keys_sent({"kind": "bedrock_converse", "region": "eu-west-1"}, [400]))
    assert re.match(
        r"authorization: AWS4-HMAC-SHA256 Credential=local/\d{8}/eu-west-1/bedrock/aws4_request, "
        r"SignedHeaders=content-type;host;x-amz-date, Signature=[0-9a-f]{64}$",
        sent,
        re.IGNORECASE,
    )


@pytest.mark.parametrize("problem", [None, MetadataRetrievalError(error_msg="http://169.254.170.2 does not answer")])
def test_bedrock_without_credentials_is_not_asked(monkeypatch: pytest.MonkeyPatch, problem: Exception | None) -> None:
    def get_credentials(_: Session) -> None:
        if problem is not None:
            raise problem

    monkeypatch.setattr(Session, "get_credentials", get_credentials)
    monkeypatch.setattr(bedrock_converse, "_credentials", bedrock_converse._credentials.__wrapped__)
    failed = failure(NOWHERE, "hi", kind="bedrock_converse", region="us-east-1", retries=2)
    assert (failed.code, failed.reached) == ("provider_error", False)
    assert failed.diagnostic.startswith("no request can be made: ")
    assert "169.254" not in failed.diagnostic


def test_what_is_sent_to_bedrock_is_what_was_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    role = ReadOnlyCredentials("AKIDEXAMPLE", "secret", "session-token")
    monkeypatch.setattr(bedrock_converse, "_frozen", lambda: role)
    profile = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"
    sent = b""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        sent = await reader.readuntil(b"\r\n\r\n")
        sent += await reader.readexactly(int(re.findall(rb"(?i)content-length: (\d+)", sent)[0]))
        writer.write(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            entry = an_entry(url, kind="bedrock_converse", region="us-east-1")
            prompt = replace(a_prompt("Größe"), model=profile, traceparent=TRACEPARENT)
            async with asyncio.timeout(WAIT_SECONDS), providers_of(entry) as providers:
                assert [chunk async for chunk in providers.stream(TENANT, "it", prompt)]

    asyncio.run(run())
    head, _, content = sent.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    path = first.split()[1]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert path == f"/model/{profile.replace(':', '%3A').replace('/', '%2F')}/converse-stream"
    assert headers["x-amz-security-token"] == "session-token"
    assert headers["traceparent"] == TRACEPARENT
    signed = AWSRequest("POST", f"http://{headers['host']}{path}", {"content-type": headers["content-type"]}, content)
    signed.headers["X-Amz-Date"] = signed.context["timestamp"] = headers["x-amz-date"]
    signed.headers["X-Amz-Security-Token"] = "session-token"
    judge = SigV4Auth(role, "bedrock", "us-east-1")
    signature = judge.signature(judge.string_to_sign(signed, judge.canonical_request(signed)), signed)
    assert headers["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize("tells", [True, False])
def test_a_provider_hears_who_asks_unless_its_entry_forbids_it_and_the_trace_in_any_case(
    tells: bool,
) -> None:
    sent = b""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        sent = await reader.readuntil(b"\r\n\r\n")
        sent += await reader.readexactly(int(re.findall(rb"(?i)content-length: (\d+)", sent)[0]))
        writer.write(b"HTTP/1.1 400 X\r\nx-request-id: req_theirs\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> dict[str, Any]:
        event = observability.begin()
        async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            prompt = replace(a_prompt("hi"), user="hash", metadata={"chat": "hash"}, traceparent=TRACEPARENT)
            async with asyncio.timeout(WAIT_SECONDS), providers_of(an_entry(url, tells_who_asks=tells)) as providers:
                assert [chunk async for chunk in providers.stream(TENANT, "it", prompt)]
        return event.fields

    fields = asyncio.run(run())
    head, _, content = sent.partition(b"\r\n\r\n")
    body = json.loads(content)
    assert (body.get("user"), body.get("metadata")) == (("hash", {"chat": "hash"}) if tells else (None, None))
    assert f"traceparent: {TRACEPARENT}".encode() in head.lower()
    # What its support asks for, also of a request that failed.
    assert fields["provider_request_id"] == "req_theirs"


def test_a_tenant_has_a_provider_and_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", "ours")
    monkeypatch.setenv("THEIR_KEY", "theirs")
    theirs = an_auth("THEIR_KEY")

    async def run() -> tuple[list[str], list[str]]:
        async with recorded() as (ours, our_url), recorded() as (other, other_url):
            overrides = {"keyed": {"auth": theirs}, "elsewhere": {"base_url": other_url, "auth": theirs}}
            entry = an_entry(our_url, auth=an_auth("OUR_KEY"), tenant_overrides=overrides)
            async with asyncio.timeout(WAIT_SECONDS), providers_of(entry) as providers:
                for tenant in ("anybody", "keyed", "elsewhere", "anybody"):
                    assert [chunk async for chunk in providers.stream(TenantId(tenant), "it", a_prompt("hi"))]
        return ours, other

    ours, other = asyncio.run(run())
    assert ours == [f"Authorization: Bearer {key}" for key in ("ours", "theirs", "ours")]
    assert other == ["Authorization: Bearer theirs"]


def test_neither_client_nor_keys_are_paid_for_at_import() -> None:
    imported = _imported("import minichat.providers.registry")
    assert not {"boto3", "botocore", "httpcore2"} & imported
    assert not {f"minichat.providers.{name}" for name in ADAPTERS} & imported


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_call_imports_the_adapter_of_its_kind_alone(kind: str) -> None:
    imported = _imported(f"from minichat.providers.registry import adapter; adapter({kind!r})")
    assert {name for name in ADAPTERS if f"minichat.providers.{name}" in imported} == {kind}
    assert "boto3" not in imported
    assert ("botocore" in imported) == (kind == "bedrock_converse")


def _imported(program: str) -> set[str]:
    """The modules that a fresh process has after this program."""
    command = [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
