"""Where bytes come from and go to: the one place that does I/O, twice, blocking and on an event loop.

Everything else is written once, as coroutines over `Wire`. A blocking wire never waits for an event loop, so the
blocking client runs a coroutine by one step (`run`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx2

from minichat_client.errors import Unreachable

T = TypeVar("T")

CONNECT_SECONDS = 5
ANSWER_SECONDS = 30
"""More than a server waits for a file (`Prefer: wait`)."""
SILENCE_SECONDS = 90
"""A stream that is silent this long is lost: a live server sends a ping at least every minute."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A form to post: its fields, then the file."""

    fields: Mapping[str, str]
    filename: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked; `url` is below the base URL, or whole."""

    method: str
    url: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    upload: Upload | None = None

    def with_header(self, name: str, value: str) -> "Request":
        """The same with one header more."""
        return replace(self, headers={**self.headers, name: value})


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, with its whole body unless that is a stream."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def is_success(self) -> bool:
        """Whether the server did what it was asked for."""
        return 200 <= self.status < 300

    @property
    def is_stream(self) -> bool:
        """Whether the body is a stream of events."""
        return self.is_success and self.headers.get("content-type", "").startswith("text/event-stream")


class Stream(Protocol):
    """A response that is open."""

    reply: Reply

    async def read(self) -> bytes:
        """The next bytes; none at the end. Raises Unreachable."""

    async def close(self) -> None:
        """Leaves it."""


class Wire(Protocol):
    """A way to a server."""

    async def ask(self, request: Request) -> Reply:
        """The response, whole. Raises Unreachable."""

    async def open(self, request: Request) -> Stream:
        """The response; open if it is a stream. Raises Unreachable."""

    async def pause(self, seconds: float) -> None:
        """Waits."""

    async def close(self) -> None:
        """Closes every connection."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that awaits nothing but a blocking wire."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("MiniChat is blocking, and its token is asynchronous: AsyncMiniChat can wait for it.")


class BlockingWire:
    """A wire for threads; several may use it at a time."""

    def __init__(self, url: str, transport: httpx2.BaseTransport | None) -> None:
        self._url = url
        self._http = httpx2.Client(transport=transport, **_options(url))

    async def ask(self, request: Request) -> Reply:
        """As `Wire.ask`."""
        with _translated(self._url):
            return _whole(self._http.send(_built(self._http, request, ANSWER_SECONDS)))

    async def open(self, request: Request) -> Stream:
        """As `Wire.open`."""
        with _translated(self._url):
            response = self._http.send(_built(self._http, request, SILENCE_SECONDS), stream=True)
            stream = _BlockingStream(self._url, response)
            if not stream.reply.is_stream:
                response.read()
                stream.reply = _whole(response)
        return stream

    async def pause(self, seconds: float) -> None:
        """As `Wire.pause`."""
        time.sleep(seconds)  # noqa: ASYNC251  no event loop runs this

    async def close(self) -> None:
        """As `Wire.close`."""
        self._http.close()


class _BlockingStream:
    def __init__(self, url: str, response: httpx2.Response) -> None:
        self._url = url
        self._response = response
        self._chunks: Iterator[bytes] | None = None
        self.reply = _head(response)

    async def read(self) -> bytes:
        with _translated(self._url):
            self._chunks = self._chunks or self._response.iter_bytes()
            return next(self._chunks, b"")

    async def close(self) -> None:
        self._response.close()


class AsyncWire:
    """A wire on an event loop."""

    def __init__(self, url: str, transport: httpx2.AsyncBaseTransport | None) -> None:
        self._url = url
        self._http = httpx2.AsyncClient(transport=transport, **_options(url))

    async def ask(self, request: Request) -> Reply:
        """As `Wire.ask`."""
        with _translated(self._url):
            return _whole(await self._http.send(_built(self._http, request, ANSWER_SECONDS)))

    async def open(self, request: Request) -> Stream:
        """As `Wire.open`."""
        with _translated(self._url):
            response = await self._http.send(_built(self._http, request, SILENCE_SECONDS), stream=True)
            stream = _AsyncStream(self._url, response)
            if not stream.reply.is_stream:
                await response.aread()
                stream.reply = _whole(response)
        return stream

    async def pause(self, seconds: float) -> None:
        """As `Wire.pause`."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """As `Wire.close`."""
        await self._http.aclose()


class _AsyncStream:
    def __init__(self, url: str, response: httpx2.Response) -> None:
        self._url = url
        self._response = response
        self._chunks: AsyncIterator[bytes] | None = None
        self.reply = _head(response)

    async def read(self) -> bytes:
        with _translated(self._url):
            self._chunks = self._chunks or self._response.aiter_bytes()
            return await anext(self._chunks, b"")

    async def close(self) -> None:
        await self._response.aclose()


def _options(url: str) -> dict[str, Any]:
    # A proxy of the environment is for other hosts than this machine.
    outside = urlsplit(url).hostname not in _LOOPBACK
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    return {"base_url": url, "trust_env": outside, "limits": limits, "follow_redirects": False}


def _built(http: httpx2.Client | httpx2.AsyncClient, request: Request, seconds: float) -> httpx2.Request:
    body: dict[str, Any] = {}
    if request.upload is not None:
        file = (request.upload.filename, request.upload.content)
        body = {"data": dict(request.upload.fields), "files": {"file": file}}
    elif request.content is not None:
        body = {"content": request.content}
    return http.build_request(
        request.method,
        request.url,
        params=dict(request.params) or None,
        headers=dict(request.headers),
        timeout=httpx2.Timeout(seconds, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        **body,
    )


def _head(response: httpx2.Response) -> Reply:
    return Reply(response.status_code, response.headers)


def _whole(response: httpx2.Response) -> Reply:
    return Reply(response.status_code, response.headers, response.content)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turns what httpx2 raises into sentences."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        raise Unreachable(f"Nobody answers at {url}.") from None
    except httpx2.TimeoutException:
        raise Unreachable("The server is silent.") from None
    except (httpx2.HTTPError, httpx2.InvalidURL):
        raise Unreachable("The connection broke.") from None
