"""The client for the event loop, against a server that answers as DynamoDB does, and as it should not."""

import asyncio
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import h11
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ChecksumError, ClientError, ConnectionClosedError, EndpointConnectionError
from botocore.exceptions import ReadTimeoutError as ReadTimeout
from botocore.session import Session

from minichat.local.process import free_port
from minichat.settings import Store
from minichat.storage import dynamodb
from minichat.storage.dynamodb import Connections, Where
from tests.support.patience import PATIENCE
from tests.support.tls import self_signed

Reply = bytes | None
Replies = Callable[[h11.Request, bytes], Reply]


def told(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer as bytes."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


class Server:
    """What was asked of it, and how many connections it was asked on."""

    def __init__(self, reply: Replies) -> None:
        self._reply = reply
        self.asked: list[tuple[h11.Request, bytes]] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        http, body = h11.Connection(h11.SERVER), b""
        request: h11.Request | None = None
        with closing(writer):
            while True:
                match http.next_event():
                    case h11.NEED_DATA:
                        http.receive_data(await reader.read(65_536))
                    case h11.Request() as came:
                        request, body = came, b""
                    case h11.Data(data=data):
                        body += bytes(data)
                    case h11.EndOfMessage():
                        assert request is not None
                        self.asked.append((request, body))
                        reply = self._reply(request, body)
                        if reply is None:
                            return
                        writer.write(reply)
                        http = h11.Connection(h11.SERVER)
                    case _:
                        return


@asynccontextmanager
async def serving(
    reply: Replies, certificate: Path | None = None, **said: float
) -> AsyncIterator[tuple[Server, Connections]]:
    server = Server(reply)
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    scheme = "http" if certificate is None else "https"
    # A busy machine may take its time to connect; what is tried here comes after that.
    numbers: dict[str, Any] = {"connect_timeout_seconds": 30, **said}
    client = Connections(Where.of(Store(endpoint=f"{scheme}://localhost:{port}", **numbers)))
    try:
        yield server, client
    finally:
        client.close()
        listening.close()


@pytest.fixture
def a_key(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    found = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a/session+token==")
    monkeypatch.setattr(dynamodb, "_found", lambda: found)
    return found


async def test_a_request_is_signed_as_aws_signs_it(a_key: Credentials) -> None:
    async with serving(lambda *_: told(b"{}")) as (server, client):
        await client.call("GetItem", {"Key": {"pk": {"S": "Zürich"}}})
    ((request, body),) = server.asked
    headers = {name.decode(): value.decode() for name, value in request.headers}
    signed = AWSRequest(
        method="POST",
        url=f"http://{headers['host']}/",
        data=body,
        headers={"Content-Type": headers["content-type"], "X-Amz-Target": headers["x-amz-target"]},
    )
    signed.context["timestamp"] = headers["x-amz-date"]
    expected = SigV4Auth(a_key, "dynamodb", "us-east-1")
    signed.headers["X-Amz-Date"] = headers["x-amz-date"]
    signed.headers["X-Amz-Security-Token"] = str(a_key.token)
    canonical = expected.canonical_request(signed)
    signature = expected.signature(expected.string_to_sign(signed, canonical), signed)
    assert headers["authorization"].endswith(f"Signature={signature}")
    assert "x-amz-security-token" in headers["authorization"]


async def test_bytes_travel_as_base64_both_ways() -> None:
    def same(_: h11.Request, body: bytes) -> bytes:
        return told(body)

    item = {"zip": {"B": b"\x00\xff"}, "text": {"S": "B"}, "deep": {"M": {"x": {"L": [{"B": b"1"}]}}}}
    async with serving(same) as (server, client):
        assert await client.call("PutItem", {"Item": item}) == {"Item": item}
    assert json.loads(server.asked[0][1])["Item"]["zip"] == {"B": "AP8="}


async def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_is_not_used() -> None:
    async with serving(lambda *_: told(b"{}")) as (server, client):
        for _ in range(5):
            await client.call("GetItem", {})
        assert server.connections == 1
    replies = [told(b"{}", b"connection: close"), told(b"{}"), told(b"{}")]
    async with serving(lambda *_: replies.pop(0)) as (server, client):
        for _ in range(3):
            await client.call("GetItem", {})
        assert server.connections == 2


async def test_a_connection_whose_end_nobody_has_heard_of_is_not_used() -> None:
    """A function that was frozen: the other side has closed it, and the loop has not looked since."""
    async with serving(lambda *_: told(b"{}")) as (server, client):
        await client.call("GetItem", {})
        (kept,) = client._idle
        assert kept.is_alive()
        transport: Any = kept._transport
        transport.pause_reading()
        async with asyncio.timeout(PATIENCE):
            server.writers[0].close()
            while kept.is_alive():  # noqa: ASYNC110  the kernel tells nobody
                await asyncio.sleep(0.01)
        assert await client.call("GetItem", {}) == {}
        assert server.connections == 2


async def test_over_tls_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with AWS: who the other side is is checked, and what it has closed is not used."""
    certificate = self_signed("localhost", tmp_path)
    async with serving(lambda *_: told(b"{}"), certificate) as (server, client):
        with pytest.raises(EndpointConnectionError):
            await client.call("GetItem", {})
        assert server.asked == []
        monkeypatch.setattr(dynamodb, "_tls", lambda: ssl.create_default_context(cafile=certificate))
        await asyncio.gather(*(client.call("GetItem", {}) for _ in range(3)))
        await client.call("GetItem", {})
        assert server.connections == 3
        for writer in server.writers:
            writer.close()
        async with asyncio.timeout(PATIENCE):
            while any(kept.is_alive() for kept in client._idle):  # noqa: ASYNC110  the kernel tells nobody
                await asyncio.sleep(0.01)
        assert await client.call("GetItem", {}) == {}
        assert server.connections == 4


@pytest.mark.parametrize(
    ("region", "host"),
    [("eu-west-1", "dynamodb.eu-west-1.amazonaws.com"), ("cn-north-1", "dynamodb.cn-north-1.amazonaws.com.cn")],
)
def test_without_an_endpoint_it_is_the_regions(region: str, host: str) -> None:
    client = Connections(Where.of(Store(region=region)))
    found: Any = Session().create_client("dynamodb", region, aws_access_key_id="a", aws_secret_access_key="b")
    assert (client._address, client._host) == ((host, 443), host)
    assert found.meta.endpoint_url == f"https://{host}"


async def test_calls_at_once_have_connections_of_their_own() -> None:
    async with serving(lambda *_: told(b"{}")) as (server, client):
        await asyncio.gather(*(client.call("GetItem", {}) for _ in range(10)))
        assert server.connections == 10


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow"}', "ThrottlingException"),
        (b'{"__type":"ValidationException","Message":"slow"}', "ValidationException"),
        (b"<html>", "400"),
        (b"[]", "400"),
    ],
)
async def test_an_error_is_told_as_botocore_tells_it(body: bytes, code: str) -> None:
    async with serving(lambda *_: told(body, status=b"400 Bad Request")) as (_, client):
        with pytest.raises(ClientError) as raised:
            await client.call("PutItem", {})
    response: Any = raised.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, 400)


async def test_reasons_of_a_cancelled_transaction_have_the_old_items() -> None:
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": {"zip": {"B": "AP8="}}}]
    body = json.dumps({"__type": "x#TransactionCanceledException", "CancellationReasons": reasons}).encode()
    async with serving(lambda *_: told(body, status=b"400 Bad Request")) as (_, client):
        with pytest.raises(ClientError) as raised:
            await client.call("TransactWriteItems", {"TransactItems": []})
    response: Any = raised.value.response
    assert response["CancellationReasons"][1]["Item"] == {"zip": {"B": b"\x00\xff"}}


async def test_an_answer_that_was_changed_on_its_way_is_none() -> None:
    good = b"x-amz-crc32: %d" % zlib.crc32(b"{}")
    async with serving(lambda *_: told(b"{}", good)) as (_, client):
        assert await client.call("GetItem", {}) == {}
    async with serving(lambda *_: told(b"{ }", good)) as (_, client):
        with pytest.raises(ChecksumError):
            await client.call("GetItem", {})


async def test_an_answer_that_never_comes_is_not_waited_for_for_ever() -> None:
    async with serving(lambda *_: b"", read_timeout_seconds=0.2) as (server, client):
        with pytest.raises(ReadTimeout):
            await client.call("GetItem", {})
        with pytest.raises(ReadTimeout):
            await client.call("GetItem", {})
        assert server.connections == 2, "half an answer may still come on the first"


@pytest.mark.parametrize("reply", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b"nonsense\r\n\r\n"])
async def test_a_connection_that_breaks_says_nothing_of_what_was_done(reply: Reply) -> None:
    replies = [reply, None]

    async with serving(lambda *_: replies.pop(0), read_timeout_seconds=0.5) as (_, client):
        with pytest.raises((ConnectionClosedError, ReadTimeout)):
            await client.call("PutItem", {})


async def test_nobody_at_the_address_is_told_as_never_sent() -> None:
    client = Connections(Where.of(Store(endpoint=f"http://127.0.0.1:{free_port()}")))
    with pytest.raises(EndpointConnectionError):
        await client.call("GetItem", {})


async def test_a_call_that_is_cancelled_leaves_no_half_answer_behind() -> None:
    slow = asyncio.Event()

    def reply(*_: object) -> bytes:
        slow.set()
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{" if len(server.asked) == 1 else told(b"{}")

    async with serving(reply) as (server, client):
        call = asyncio.create_task(client.call("GetItem", {}))
        await slow.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await client.call("GetItem", {}) == {}
