"""The stand-in for the Runtime API answers a runtime as AWS's emulator does, so that it is no kinder."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from tests.support.aws.emulator import SAM, Emulator
from tests.support.aws.runtime_api import API, MAX_RESPONSE_BYTES, RuntimeApi
from tests.support.patience import PATIENCE

PRELUDE = b'{"statusCode":200}' + b"\0" * 8
NOT_ALLOWED = (403, "InvalidStateTransition")


@dataclass
class Runtime:
    """A runtime that does what a test says."""

    http: httpx2.AsyncClient
    api: RuntimeApi | Emulator
    clients: list[asyncio.Task[Any]] = field(default_factory=list)

    def invoke(self, event: bytes) -> asyncio.Task[Any]:
        """Sends an event on its way; done when the client has been answered."""
        api = self.api
        answer = api.invoke(event) if isinstance(api, RuntimeApi) else asyncio.to_thread(api.invoke, event)
        self.clients.append(asyncio.create_task(answer))
        return self.clients[-1]

    async def given(self, event: bytes) -> str:
        """The id of the invocation that this event has become."""
        self.invoke(event)
        return _id_of(await self.next())

    async def next(self) -> httpx2.Response:
        """What a request for the next invocation is answered, once the Runtime API is there."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await self.http.get("/invocation/next")
            except httpx2.TransportError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    async def respond(
        self, request_id: str, body: bytes | Iterable[bytes], *, mode: str = "streaming"
    ) -> tuple[int, str]:
        """How a response is answered."""
        return await self.post(f"/invocation/{request_id}/response", body, _streaming(mode))

    async def responding(self, request_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection of a streamed response that has begun: what follows is the test's."""
        host = self.http.base_url.netloc.decode()
        reader, writer = await asyncio.open_connection(*host.split(":"))
        head = f"POST {API}/invocation/{request_id}/response HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in _streaming().items())
        writer.write(head.encode() + b"\r\n%x\r\n%s\r\n" % (len(PRELUDE), PRELUDE))
        return reader, writer

    async def error(self, request_id: str) -> tuple[int, str]:
        """How an error is answered."""
        return await self.post(f"/invocation/{request_id}/error", b'{"errorMessage":"m","errorType":"T"}', {})

    async def post(self, path: str, body: bytes | Iterable[bytes], headers: dict[str, str]) -> tuple[int, str]:
        """Status and type of the error that a request is answered."""

        async def parts() -> AsyncIterator[bytes]:
            for part in [body] if isinstance(body, bytes) else body:
                yield part

        answer = await self.http.post(path, content=parts(), headers=headers)
        return answer.status_code, answer.json().get("errorType", "")


@pytest.fixture(params=["AWS's emulator", "the stand-in"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    """The same questions to both."""
    emulated = request.param != "the stand-in"
    if emulated and not SAM.is_dir():
        pytest.skip("the SAM CLI is not installed (`make tools`)")
    async with AsyncExitStack() as stack:
        clients: list[asyncio.Task[Any]] = []
        stack.push_async_callback(_forget, clients)
        if emulated:
            api: RuntimeApi | Emulator = stack.enter_context(Emulator(["sleep", "600"], {"PATH": os.environ["PATH"]}))
        else:
            api = await stack.enter_async_context(RuntimeApi())
        yield Runtime(await stack.enter_async_context(_client(api.host)), api, clients)


async def _forget(clients: list[asyncio.Task[Any]]) -> None:
    """Clients that will not be answered any more."""
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


def _client(host: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://{host}{API}", trust_env=False, timeout=PATIENCE)


def _streaming(mode: str = "streaming") -> dict[str, str]:
    media_type = "application/vnd.awslambda.http-integration-response"
    return {"Lambda-Runtime-Function-Response-Mode": mode, "Content-Type": media_type}


def _id_of(given: httpx2.Response) -> str:
    return str(given.headers["lambda-runtime-aws-request-id"])


@pytest.mark.parametrize("size", [2, 2047, 2048, 2049, 100_000])
async def test_an_event_has_a_length_up_to_2048_bytes_and_comes_chunked_above(runtime: Runtime, size: int) -> None:
    event = b'"' + b"a" * (size - 2) + b'"'
    runtime.invoke(event)
    given = await runtime.next()
    assert given.content == event
    framing = {name: given.headers[name] for name in ("content-length", "transfer-encoding") if name in given.headers}
    assert framing == ({"content-length": str(size)} if size <= 2048 else {"transfer-encoding": "chunked"})
    assert int(given.headers["lambda-runtime-deadline-ms"]) > time.time() * 1000


async def test_an_event_is_given_again_until_it_is_answered_and_then_its_id_means_nothing(runtime: Runtime) -> None:
    invoking = runtime.invoke(b"1")
    request_id = _id_of(await runtime.next())
    assert _id_of(await runtime.next()) == request_id
    assert await runtime.respond("another", PRELUDE) == (400, "InvalidRequestID")
    assert await runtime.respond(request_id, PRELUDE + b"hi") == (202, "")
    assert await runtime.respond(request_id, PRELUDE) == NOT_ALLOWED
    assert await runtime.error(request_id) == NOT_ALLOWED
    # The emulator answers its client when the runtime asks for more, and takes no event before.
    asking = asyncio.create_task(runtime.next())
    await invoking
    runtime.invoke(b"2")
    following = await asking
    assert following.content == b"2"
    assert await runtime.respond(request_id, PRELUDE) == (400, "InvalidRequestID")
    assert await runtime.error(_id_of(following)) == (202, "")
    assert await runtime.error(_id_of(following)) == NOT_ALLOWED


async def test_a_wrong_mode_is_refused_and_nothing_helps_afterwards(runtime: Runtime) -> None:
    request_id = await runtime.given(b"1")
    assert await runtime.respond(request_id, [PRELUDE], mode="bogus") == (400, "InvalidFunctionResponseMode")
    assert await runtime.respond(request_id, PRELUDE) == NOT_ALLOWED
    assert await runtime.error(request_id) == NOT_ALLOWED
    refused = await runtime.next()
    assert (refused.status_code, refused.json()["errorType"]) == NOT_ALLOWED


async def test_a_response_that_breaks_off_is_the_last_word(runtime: Runtime) -> None:
    request_id = await runtime.given(b"1")
    reader, writer = await runtime.responding(request_id)
    writer.write_eof()
    # Whoever reads a body that breaks off hangs up once it knows: the next request comes after that.
    await reader.read()
    writer.close()
    assert await runtime.error(request_id) == NOT_ALLOWED
    assert (await runtime.next()).status_code == 403


async def test_a_response_has_at_most_six_megabytes(runtime: Runtime) -> None:
    request_id = await runtime.given(b"1")
    rest = MAX_RESPONSE_BYTES + 1 - len(PRELUDE)
    parts = [PRELUDE, *[b"x" * 65_536] * (rest // 65_536), b"x" * (rest % 65_536)]
    assert await runtime.respond(request_id, parts) == (413, "RequestEntityTooLarge")
    assert await runtime.error(request_id) == NOT_ALLOWED


@pytest.mark.parametrize(("size", "taken"), [(3_900, True), (4_200, False)])
async def test_trailers_have_less_than_four_kilobytes(runtime: Runtime, size: int, taken: bool) -> None:
    request_id = await runtime.given(b"1")
    reader, writer = await runtime.responding(request_id)
    writer.write(b"0\r\nLambda-Runtime-Function-Error-Body: " + b"x" * size + b"\r\n\r\n")
    try:
        answer = await reader.readline()
    except ConnectionResetError:
        answer = b""
    writer.close()
    assert answer.startswith(b"HTTP/1.1 202 ") is taken
    assert (await runtime.error(request_id)) == NOT_ALLOWED


async def test_what_is_not_of_the_runtime_api_is_not_there(runtime: Runtime) -> None:
    await runtime.given(b"1")
    assert (await runtime.http.get("/invocation")).status_code == 404
    assert (await runtime.http.post("/invocation/next")).status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        b"no prelude",
        b"",
        b"{" + b"\0" * 8,
        b"[]" + b"\0" * 8,
        b"{}" + b"\0" * 8,
        b'{"statusCode":"200"}' + b"\0" * 8,
        b'{"statusCode":200,"headers":{"a":1}}' + b"\0" * 8,
        b'{"statusCode":200}' + b"\0" * 7,
        b'{"statusCode":200,"headers":{"a":"' + b"x" * 16_384 + b'"}}' + b"\0" * 8,
    ],
)
async def test_the_client_gets_a_bad_gateway_for_what_the_gateway_cannot_read(body: bytes) -> None:
    async with RuntimeApi() as api, _client(api.host) as http:
        runtime = Runtime(http, api)
        invoking = runtime.invoke(b"1")
        assert await runtime.respond(_id_of(await runtime.next()), body) == (202, "")
        assert (await invoking).head == {"statusCode": 502}
