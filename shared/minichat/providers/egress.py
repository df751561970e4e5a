"""Connections that leave the deployment: only to public addresses, whatever a name resolves to.

A name is resolved and its addresses are checked here, and the connection goes to the checked address itself: a name
that resolves differently a moment later (DNS rebinding) changes nothing. TLS still verifies the name.
"""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore2
import httpx2

from minichat.providers.transport import AddressRefused

TRY_SECONDS = 1.0
"""For each address of a name except the last: one that drops packets must not use up the others' time."""

_NAT64 = IPv6Network("64:ff9b::/96")

# A cookie from one tenant's answer would be sent with the next tenant's question.
_NO_COOKIES = DefaultCookiePolicy(allowed_domains=())

Found = Sequence[tuple[Any, ...]]
"""What `getaddrinfo` returns."""


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet; an IPv6 address that embeds an IPv4 one is judged by that."""
    found: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner is not None:
            found = inner
        elif found.is_site_local or found.teredo is not None:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


def async_client(limits: httpx2.Limits, *, anywhere: bool) -> httpx2.AsyncClient:
    """A client without redirects, proxies or cookies; private addresses only with `anywhere`."""
    transport = None if anywhere else _AsyncTransport(limits)
    made = httpx2.AsyncClient(follow_redirects=False, limits=limits, trust_env=False, transport=transport)
    made.cookies.jar.set_policy(_NO_COOKIES)
    return made


def client(limits: httpx2.Limits, *, anywhere: bool) -> httpx2.Client:
    """The same, for threads."""
    transport = None if anywhere else _Transport(limits)
    made = httpx2.Client(follow_redirects=False, limits=limits, trust_env=False, transport=transport)
    made.cookies.jar.set_policy(_NO_COOKIES)
    return made


# httpx2 has no parameter for how its pool connects. The pool is made here rather than patched, so that a renamed
# attribute fails loudly: nothing would connect at all.
class _AsyncTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, limits: httpx2.Limits) -> None:
        self._pool = httpcore2.AsyncConnectionPool(network_backend=_AsyncGuard(), **_pool_options(limits))


class _Transport(httpx2.HTTPTransport):
    def __init__(self, limits: httpx2.Limits) -> None:
        self._pool = httpcore2.ConnectionPool(network_backend=_Guard(), **_pool_options(limits))


def _pool_options(limits: httpx2.Limits) -> dict[str, Any]:
    return {
        "ssl_context": httpx2.create_ssl_context(trust_env=False),
        "max_connections": limits.max_connections,
        "max_keepalive_connections": limits.max_keepalive_connections,
        "keepalive_expiry": limits.keepalive_expiry,
    }


class _AsyncGuard(httpcore2.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the signature is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to one of the name's public addresses. Raises AddressRefused when it has none."""
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
                addresses = _public(found)
                for address in addresses[:-1]:
                    with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                        return await self._inner.connect_tcp(address, port, TRY_SECONDS, local_address, socket_options)
                return await self._inner.connect_tcp(addresses[-1], port, None, local_address, socket_options)
        except TimeoutError:
            raise httpcore2.ConnectTimeout from None
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError("the name cannot be resolved") from None


class _Guard(httpcore2.NetworkBackend):
    def __init__(self) -> None:
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """A connection to one of the name's public addresses. Raises AddressRefused when it has none."""
        try:
            addresses = _public(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError("the name cannot be resolved") from None
        for address in addresses[:-1]:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._inner.connect_tcp(address, port, TRY_SECONDS, local_address, socket_options)
        return self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


def _public(found: Found) -> list[str]:
    addresses = [str(where[0]) for *_, where in found]
    if not (public := [address for address in addresses if is_public(address)]):
        raise AddressRefused("the name leads to no public address")
    return public
