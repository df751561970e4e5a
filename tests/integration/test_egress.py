"""Where connections may lead: a name is what its addresses are, and the judged address is what is connected to."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest

from minichat.domain.cleanup import Failure
from minichat.provider_entries import Timeouts
from minichat.providers import egress
from minichat.providers.chunks import Failed, ProviderChunk
from minichat.providers.egress import is_public
from minichat.providers.files import Account
from tests.support.providers.calls import TENANT, a_prompt, an_entry, chunks_of
from tests.support.providers.files import files_of
from tests.support.tls import self_signed

PUBLIC, PRIVATE = "93.184.216.34", "10.0.0.1"
REFUSED = Failed("provider_error", "no request can be made: the name leads to no public address", reached=False)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:4700::6810:85e5", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_every_other_address_is_not(address: str) -> None:
    assert not is_public(address)


@contextmanager
def a_listener() -> Iterator[tuple[int, socket.socket]]:
    """A port of this machine, and the socket whose connections nobody has accepted yet."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening.getsockname()[1], listening


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]"])
def test_no_name_of_this_machine_is_connected_to(host: str) -> None:
    with a_listener() as (port, listening):
        url = f"https://{host}:{port}"
        assert chunks_of(an_entry(url, allow_insecure=False, retries=2), a_prompt("hi")) == [REFUSED]
        with files_of(it=an_entry(url, allow_insecure=False)) as files:
            failure = Account(files, TENANT, "it").delete_file("file-1")
        assert failure == Failure("the address is not a public one", may_pass=True)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_tenants_address_is_judged_like_any_other() -> None:
    with a_listener() as (port, _):
        entry = an_entry(
            "https://api.example.com",
            allow_insecure=False,
            tenant_overrides={TENANT: {"base_url": f"https://localhost:{port}"}},
        )
        assert chunks_of(entry, a_prompt("hi")) == [REFUSED]


def resolves_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Lets any name resolve to these addresses, another answer each time; returns what names were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were connected to; none of them answers."""
    seen: list[str] = []

    async def connect_async(_: object, host: str, *__: object) -> httpcore2.AsyncNetworkStream:
        seen.append(host)
        raise httpcore2.ConnectError("nobody there")

    def connect(_: object, host: str, *__: object) -> httpcore2.NetworkStream:
        seen.append(host)
        raise httpcore2.ConnectError("nobody there")

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect_async)
    monkeypatch.setattr(httpcore2.SyncBackend, "connect_tcp", connect)
    return seen


def test_only_the_public_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch, connected: list[str]) -> None:
    resolves_to(monkeypatch, [PRIVATE, PUBLIC, "127.0.0.1", "8.8.8.8"])
    (chunk,) = chunks_of(an_entry("https://api.example.com", allow_insecure=False), a_prompt("hi"))
    assert isinstance(chunk, Failed)
    assert (chunk.code, chunk.reached) == ("provider_error", False)
    with files_of(it=an_entry("https://api.example.com", allow_insecure=False)) as files:
        Account(files, TENANT, "it").delete_file("file-1")
    assert connected == [PUBLIC, "8.8.8.8"] * 2


def test_a_name_that_resolves_to_something_else_a_moment_later_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, connected: list[str]
) -> None:
    asked = resolves_to(monkeypatch, [PUBLIC], [PRIVATE])
    chunks_of(an_entry("https://api.example.com", allow_insecure=False), a_prompt("hi"))
    assert (asked, connected) == (["api.example.com"], [PUBLIC])
    # Each connection is judged anew.
    assert chunks_of(an_entry("https://api.example.com", allow_insecure=False), a_prompt("hi")) == [REFUSED]
    assert connected == [PUBLIC]


def test_a_name_that_cannot_be_resolved_is_a_connection_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known: api.example.com")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    (chunk,) = chunks_of(an_entry("https://api.example.com", allow_insecure=False), a_prompt("hi"))
    assert chunk == Failed("provider_error", "ConnectError('the name cannot be resolved')", reached=False)
    with files_of(it=an_entry("https://api.example.com", allow_insecure=False)) as files:
        assert Account(files, TENANT, "it").delete_file("file-1") == Failure("no connection", may_pass=True)


def test_a_host_that_swallows_packets_is_a_time_out() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # With its queue full, the kernel answers nobody: what a firewall that drops packets looks like.
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        patience = Timeouts(connect_seconds=0.3, first_byte_seconds=5)
        (chunk,) = chunks_of(an_entry(url, timeouts=patience), a_prompt("hi"))
    assert isinstance(chunk, Failed)
    assert (chunk.code, chunk.reached) == ("provider_timeout", False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of `provider.test`."""
    return self_signed("provider.test", tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def tls_server(certificate: Path) -> AsyncIterator[int]:
    """The port of a server that refuses every request, politely and with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 418 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("host", "trusted", "told"),
    [
        ("provider.test", True, "status 418"),
        ("another.test", True, "ConnectError"),
        ("provider.test", False, "Conn"),
    ],
)
def test_tls_verifies_the_name_and_not_the_address(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool, told: str
) -> None:
    monkeypatch.setattr(egress, "is_public", lambda _: True)
    if trusted:
        trust = ssl.create_default_context(cafile=certificate)
        monkeypatch.setattr(httpx2, "create_ssl_context", lambda **_: trust)

    async def run() -> list[ProviderChunk]:
        async with tls_server(certificate) as port:
            resolves_to(monkeypatch, ["127.0.0.1"])
            return await asyncio.to_thread(
                chunks_of, an_entry(f"https://{host}:{port}", allow_insecure=False), a_prompt("hi")
            )

    (chunk,) = asyncio.run(run())
    assert isinstance(chunk, Failed)
    assert chunk.diagnostic.startswith(told)
