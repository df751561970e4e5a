"""One call of a provider over HTTP: the request, the time limits, the retries, and the bytes for a reader.

The status decides first, the body second (`refusals`). Before the first byte of an answer a refusal that may pass (429,
5xx, no connection) is tried again within the first byte's time; after it, never: text may already have been sent on.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import httpx2

from minichat.domain.usage import Usage
from minichat.moment import now
from minichat.pauses import jittered
from minichat.provider_entries import Provider
from minichat.providers import refusals
from minichat.providers.chunks import Failed, FailureCode, ProviderChunk, Terminal
from minichat.providers.credentials import ProviderKey
from minichat.providers.diagnostics import redact_diagnostic
from minichat.providers.time_limit import TimeLimit

FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 5.0
"""A user is waiting: a provider that asks for a longer pause (Retry-After) is not retried."""
MAX_ERROR_BODY_BYTES = 16_384
ERROR_BODY_SECONDS = 2.0
LAST_BYTES_SECONDS = 0.1
_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
"""Headers with the provider's id of a request, which its support asks for."""
MAX_ID_CHARACTERS = 128

_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class NotAsked(Exception):
    """No request can be made, for the reason in the message; nothing was sent."""


class AddressRefused(NotAsked):
    """The provider's host name has no public address."""


class NobodyAtWork(asyncio.CancelledError):
    """The caller stopped waiting when every request had been refused, or none had left."""


class Reader(Protocol):
    """Decodes the bytes of one answer, in whatever pieces they come, into chunks."""

    @property
    def usage(self) -> Usage:
        """What the provider has counted so far."""

    def feed(self, part: bytes) -> Iterator[ProviderChunk]:
        """The chunks that these bytes complete, a terminal one last.

        Raises ValueError for bytes it cannot read.
        """

    def ended(self) -> Iterator[ProviderChunk]:
        """What the end of the bytes means, a terminal chunk last."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and the reader of its answer."""

    model: str
    body: dict[str, Any]
    reader: Reader
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream"
    auth: httpx2.Auth | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """How a provider is called: the client, the entry, the key, and the name that metrics have for it."""

    client: httpx2.AsyncClient
    entry: Provider
    key: ProviderKey | None
    name: str


class _Refused(Exception):
    """There is no answer to read; the provider asks to wait `retry_after` seconds."""

    def __init__(self, failed: Failed, *, may_pass: bool, status: int = 0, retry_after: float = 0) -> None:
        self.failed = failed
        self.may_pass = may_pass
        self.status = status
        self.retry_after = retry_after
        super().__init__(failed.code)


async def stream(line: Line, exchange: Exchange) -> AsyncGenerator[ProviderChunk, None]:
    """The provider's answer, ending with exactly one terminal chunk; closing the generator closes the connection.

    The provider's failures never raise: they end in the terminal chunk `Failed`.
    """
    times, begun = line.entry.timeouts, asyncio.get_running_loop().time()
    total_by = begun + times.total_seconds
    first_byte_by = min(begun + times.first_byte_seconds, total_by)
    secrets = [urlsplit(line.entry.base_url).hostname or ""]
    try:
        response = await _opened(line, exchange, first_byte_by, secrets)
    except _Refused as refused:
        yield _failed(line, refused.failed, secrets)
        return
    try:
        async with aclosing(_chunks(response, exchange.reader, times.idle_seconds, first_byte_by, total_by)) as chunks:
            async for chunk in chunks:
                yield _failed(line, chunk, secrets) if isinstance(chunk, Failed) else chunk
    finally:
        await response.aclose()


def _failed(line: Line, failed: Failed, secrets: list[str]) -> Failed:
    """The failure, counted, with a diagnostic fit for logs: all of a provider's words must pass through here."""
    from minichat.observability import count  # noqa: PLC0415  more than an adapter costs, and there by now

    count("provider_errors_total", provider=line.name, code=failed.code)
    return replace(failed, diagnostic=redact_diagnostic(failed.diagnostic, *secrets))


def _request(line: Line, key: str | None, exchange: Exchange) -> httpx2.Request:
    entry = line.entry
    # Compressed events would come in blocks, late.
    headers = {"accept": exchange.content_type, "accept-encoding": "identity", **exchange.headers}
    if entry.auth is not None and key is not None:
        headers[entry.auth.header] = carried = entry.auth.prefix + key
        # Checked here, because a later error would quote the key.
        if not (carried.isascii() and carried.isprintable()):
            raise NotAsked("no header can carry the key")
    # Reading has its own deadlines: httpx2's would restart with each part.
    timeout = httpx2.Timeout(None, connect=entry.timeouts.connect_seconds, pool=entry.timeouts.connect_seconds)
    try:
        return line.client.build_request(
            "POST", _parsed(_url(entry, exchange.model)), json=exchange.body, headers=headers, timeout=timeout
        )
    except (httpx2.InvalidURL, ValueError) as error:
        raise NotAsked(type(error).__name__) from None


@lru_cache(maxsize=256)
def _parsed(url: str) -> httpx2.URL:
    """An address of a provider: there are few, each with the few models of a deployment."""
    return httpx2.URL(url)


def _url(entry: Provider, model: str) -> str:
    url = entry.base_url.rstrip("/") + entry.api_path.replace("{model}", quote(model, safe=""))
    return url if entry.api_version is None else f"{url}?{urlencode({'api-version': entry.api_version})}"


async def _opened(line: Line, exchange: Exchange, by: float, secrets: list[str]) -> httpx2.Response:
    """The response whose body is the stream; refusals that may pass are retried within the first byte's time.

    A refused key is read again, and tried once more if it has changed. Adds the keys that it sends to `secrets`.
    Raises _Refused, and NobodyAtWork.
    """
    key = line.key
    sent = None if key is None else await key.current()
    reached, unsure, attempt, renewed = False, False, 0, False
    while True:
        secrets += [] if sent is None else [sent]
        try:
            return await _attempt(line, sent, exchange, by)
        except NobodyAtWork as stopped:
            raise asyncio.CancelledError if unsure else stopped from None
        except _Refused as refused:
            # After one attempt without a refusal, the provider may be at work.
            reached = reached or refused.failed.reached
            unsure = unsure or (refused.failed.reached and not refused.failed.refused)
            last = _Refused(replace(refused.failed, reached=reached, refused=reached and not unsure), may_pass=False)
            if refused.status == 401 and key is not None and sent is not None and not renewed:
                renewed = True
                if (sent := await key.instead_of(sent)) is not None:
                    continue
            pause = jittered(FIRST_PAUSE_SECONDS * 2**attempt) + refused.retry_after
            too_long = pause > MAX_PAUSE_SECONDS or asyncio.get_running_loop().time() + pause >= by
            if not refused.may_pass or attempt >= line.entry.retries or too_long:
                raise last from None
        try:
            await _before_another(line, last.failed, pause)
        except asyncio.CancelledError:
            raise asyncio.CancelledError if unsure else NobodyAtWork from None
        attempt += 1


async def _before_another(line: Line, failed: Failed, pause: float) -> None:
    """Pauses before a request is repeated, and counts it."""
    from minichat.observability import count  # noqa: PLC0415  more than an adapter costs, and there by now

    count("provider_retries_total", provider=line.name, code=failed.code)
    await asyncio.sleep(pause)


async def _attempt(line: Line, key: str | None, exchange: Exchange, by: float) -> httpx2.Response:
    """The response to one request, if its status says that it is an answer. Raises _Refused, and NobodyAtWork."""
    steps: list[str] = []

    async def step(name: str, _: object) -> None:
        steps.append(name)

    try:
        request = _request(line, key, exchange)
        request.extensions["trace"] = step
        async with asyncio.timeout_at(by):
            response = await line.client.send(request, stream=True, auth=exchange.auth)
    except asyncio.CancelledError:
        raise asyncio.CancelledError if any("send_request" in one for one in steps) else NobodyAtWork from None
    except NotAsked as reason:
        failed = Failed("provider_error", f"no request can be made: {reason}", reached=False)
        raise _Refused(failed, may_pass=False) from None
    except TimeoutError:
        raise _Refused(Failed("provider_timeout", "no answer in time"), may_pass=False) from None
    except httpx2.HTTPError as error:
        timed_out = isinstance(error, httpx2.TimeoutException)
        connected = not isinstance(error, _NOT_CONNECTED)
        code: FailureCode = "provider_timeout" if timed_out else "provider_error"
        failed = Failed(code, repr(error), reached=connected)
        raise _Refused(failed, may_pass=not connected) from None
    # The content type is not checked: gateways send lists of types, a wrong one or none.
    _note_its_name(response)
    if response.status_code == 200:
        return response
    try:
        text = await _error_text(response)
    finally:
        await response.aclose()
    failed, may_pass = refusals.of_status(response.status_code, response.headers, text)
    wait = refusals.seconds_to_wait(response.headers, now())
    raise _Refused(failed, may_pass=may_pass, status=response.status_code, retry_after=wait)


def _note_its_name(response: httpx2.Response) -> None:
    """Notes the provider's id of the request, for the log line only."""
    from minichat.observability import note  # noqa: PLC0415  more than an adapter costs, and there by now

    name = next((response.headers[header] for header in _REQUEST_IDS if header in response.headers), None)
    if name is not None:
        note(provider_request_id=name[:MAX_ID_CHARACTERS])


async def _error_text(response: httpx2.Response) -> str:
    found = b""
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            async for part in response.aiter_bytes():
                found += part
                if len(found) > MAX_ERROR_BODY_BYTES:
                    break
    except (TimeoutError, httpx2.HTTPError):
        pass  # the status alone says what matters
    return found[:MAX_ERROR_BODY_BYTES].decode(errors="replace")


async def _chunks(
    response: httpx2.Response, reader: Reader, idle_seconds: float, first_byte_by: float, total_by: float
) -> AsyncGenerator[ProviderChunk, None]:
    parts, limit = response.aiter_bytes(), TimeLimit(first_byte_by)
    problem: Failed | None = None
    try:
        while True:
            with limit:
                part = await anext(parts, None)
            if part is None:
                break
            for chunk in reader.feed(part):
                if isinstance(chunk, Terminal):
                    try:
                        yield chunk
                    finally:
                        await _read_to_its_end(parts)
                    return
                yield chunk
            limit.by = min(asyncio.get_running_loop().time() + idle_seconds, total_by)
    except (TimeoutError, httpx2.TimeoutException):
        problem = Failed("provider_timeout", "the stream fell silent, or took too long", reader.usage)
    except (httpx2.HTTPError, ValueError) as error:
        problem = Failed("provider_error", repr(error), reader.usage)
    finally:
        limit.close()
    for chunk in _last(reader, problem):
        yield chunk


async def _read_to_its_end(parts: AsyncIterator[bytes]) -> None:
    """Reads what may follow the last word, for a moment: only a connection whose answer was read is used again, and a
    new one costs the next turn two round trips and more."""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(LAST_BYTES_SECONDS):
            async for _ in parts:
                pass


def _last(reader: Reader, problem: Failed | None) -> list[ProviderChunk]:
    """The end of an answer whose bytes end: the one it announced, even if its stream failed then; else the failure."""
    said = [*reader.ended()]
    return [problem] if problem is not None and isinstance(said[-1], Failed) else said
