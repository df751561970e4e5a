"""The client of DynamoDB: one of our own on the event loop, and botocore's where there is none.

pynamodb makes the calls and expects botocore's errors, so both clients raise them. On the loop a call costs a tenth of
botocore's (docs/decisions/0015-storage-on-the-loop.md): a signed request (AWS Signature Version 4) on a kept
connection, and an answer parsed by httptools. Nothing is retried here: storage.transact and storage.items know what may
be.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import select
import ssl
import time
import zlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import httptools
from botocore.credentials import Credentials, EnvProvider, ReadOnlyCredentials
from botocore.exceptions import (
    ChecksumError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.session import Session
from pynamodb.connection import Connection

from minichat import greenlets, moment
from minichat.settings import Store
from minichat.storage import store_time

_TYPE = "application/x-amz-json-1.0"
_ERROR = 300
IDLE_SECONDS = 20
"""How long an idle connection is kept: less than DynamoDB keeps it."""


@dataclass(frozen=True, slots=True)
class Where:
    """The settings of a connection: the same for all tables."""

    region: str
    endpoint: str | None
    connect_timeout_seconds: float
    read_timeout_seconds: float
    max_connections: int

    @classmethod
    def of(cls, store: Store) -> "Where":
        """The same members of these settings."""
        return cls(*(getattr(store, field.name) for field in fields(cls)))


class Client:
    """The client that pynamodb uses in place of botocore's."""

    _request_signer = None
    """pynamodb replaces a client whose signer has no credentials; this one gets them with each call."""

    def __init__(self, store: Store) -> None:
        self._where = Where.of(store)
        self._making = Lock()

    def _make_api_call(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        if greenlets.may_wait():
            of_loop = _connections.setdefault(asyncio.get_running_loop(), {})
            if self._where not in of_loop:
                of_loop[self._where] = Connections(self._where)
            return greenlets.wait(of_loop[self._where].call(operation, params))
        answer: dict[str, Any] = self.blocking._make_api_call(operation, params)
        return answer

    @property
    def blocking(self) -> Any:
        """botocore's client, made on first use: that takes the time of eighty calls."""
        with self._making:
            return self._blocking

    @cached_property
    def _blocking(self) -> Any:
        where = self._where
        client = Connection(
            region=where.region,
            host=where.endpoint,
            connect_timeout_seconds=where.connect_timeout_seconds,
            read_timeout_seconds=where.read_timeout_seconds,
            max_pool_connections=where.max_connections,
            max_retry_attempts=0,
        ).client
        store_time.listen(client)
        return client


_connections: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Where, Connections]]" = WeakKeyDictionary()


class Connections:
    """The connections of one event loop to one place."""

    def __init__(self, where: Where) -> None:
        self._where = where
        # Partitions other than China's need the endpoint setting (AWS General Reference, "DynamoDB endpoints").
        ending = "amazonaws.com.cn" if where.region.startswith("cn-") else "amazonaws.com"
        self._url = where.endpoint or f"https://dynamodb.{where.region}.{ending}"
        parts = urlsplit(self._url)
        self._secure = parts.scheme == "https"
        self._address = str(parts.hostname), parts.port or (443 if self._secure else 80)
        self._host = parts.netloc
        self._idle: list[_Kept] = []
        self._until_the_end: AsyncGenerator[None, None] | None = None

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of an operation, as botocore's client gives it, without its metadata.

        Raises ClientError (what DynamoDB refuses), and BotoCoreError (no connection, no answer, no credentials).
        """
        if self._until_the_end is None:
            self._until_the_end = self._closing_with_the_loop()
            await anext(self._until_the_end)
        body = body_of(params)
        request = await self._signed(operation, body)
        sent = time.time()
        answer = await self._exchange(request)
        if (date := answer.headers.get("date")) is not None:
            moment.heard(date, sent, time.time())
        if (crc := answer.headers.get("x-amz-crc32")) is not None and int(crc) != zlib.crc32(answer.body):
            actual = str(zlib.crc32(answer.body))
            raise ChecksumError(checksum_type="crc32", expected_checksum=crc, actual_checksum=actual)
        parsed = _parsed(answer.body)
        if answer.status >= _ERROR:
            raise ClientError(_error(answer, parsed), operation)  # type: ignore[arg-type]  # all that is read
        return parsed

    def close(self) -> None:
        """Closes idle connections; the caller of one in use closes it."""
        while self._idle:
            self._idle.pop().close()

    async def _closing_with_the_loop(self) -> AsyncGenerator[None, None]:
        """A loop ends the generators begun on it (`loop.shutdown_asyncgens`), which closes the kept connections."""
        try:
            yield
        finally:
            self.close()
            self._until_the_end = None

    async def _exchange(self, request: bytes) -> "_Reply":
        kept = self._usable() or await self._connected()
        try:
            answer = await kept.exchange(request, self._where.read_timeout_seconds)
        except TimeoutError:
            kept.close()
            raise ReadTimeoutError(endpoint_url=self._url) from None
        except (OSError, httptools.HttpParserError) as error:
            kept.close()
            raise ConnectionClosedError(endpoint_url=self._url) from error
        except BaseException:
            # A cancelled call has left half an answer on the connection.
            kept.close()
            raise
        if kept.is_reusable and len(self._idle) < self._where.max_connections:
            self._idle.append(kept)
        else:
            kept.close()
        return answer

    def _usable(self) -> "_Kept | None":
        while self._idle:
            kept = self._idle.pop()
            if kept.is_alive():
                return kept
            kept.close()
        return None

    async def _connected(self) -> "_Kept":
        try:
            async with asyncio.timeout(self._where.connect_timeout_seconds):
                loop, tls = asyncio.get_running_loop(), _tls() if self._secure else None
                _, kept = await loop.create_connection(_Kept, *self._address, ssl=tls)
        except TimeoutError:
            raise ConnectTimeoutError(endpoint_url=self._url) from None
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=self._url, error=error) from error
        return kept

    async def _signed(self, operation: str, body: bytes) -> bytes:
        """A request as it is sent, with its signature (Signature Version 4, "Create a signed AWS API request")."""
        key = await _credentials()
        instant, target = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), f"DynamoDB_20120810.{operation}"
        day = instant[:8]
        # Sorted by name, as they are signed.
        lines, names = (
            f"content-type:{_TYPE}\nhost:{self._host}\nx-amz-date:{instant}\n",
            "content-type;host;x-amz-date",
        )
        if key.token is not None:
            lines, names = f"{lines}x-amz-security-token:{key.token}\n", f"{names};x-amz-security-token"
        lines, names = f"{lines}x-amz-target:{target}\n", f"{names};x-amz-target"
        canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{day}/{self._where.region}/dynamodb/aws4_request"
        said = f"AWS4-HMAC-SHA256\n{instant}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(_signing_key(key.secret_key, day, self._where.region), said.encode(), "sha256")
        head = (
            f"POST / HTTP/1.1\n{lines}content-length:{len(body)}\naccept-encoding:identity\n"
            f"authorization:AWS4-HMAC-SHA256 Credential={key.access_key}/{scope}, SignedHeaders={names}, "
            f"Signature={signature.hex()}\n\n"
        )
        return head.replace("\n", "\r\n").encode() + body


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class _Kept(asyncio.Protocol):
    """One connection, used by one call at a time."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._used_at = time.monotonic()
        self._waits: asyncio.Future[_Reply] | None = None
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._is_open = transport, True
        self._poll.register(transport.get_extra_info("socket"), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: whoever waits waits no longer."""
        self._is_open = False
        self._fail(exc or ConnectionResetError())

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        if self._waits is None:
            self.close()  # nobody has asked for anything
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    @property
    def is_reusable(self) -> bool:
        """Whether the last answer was whole, and another may follow."""
        return self._is_open and self._is_kept

    def is_alive(self) -> bool:
        """Whether it can be used again. A frozen process (Lambda) has not noticed that its connection was closed:
        there is unrequested data to read then."""
        fresh = time.monotonic() - self._used_at < IDLE_SECONDS
        return fresh and self._is_open and not self._transport.is_closing() and not self._poll.poll(0)

    async def exchange(self, request: bytes, seconds: float) -> "_Reply":
        """The answer to a request within that many seconds.

        Raises OSError, of which TimeoutError is one, and httptools.HttpParserError.
        """
        if not self._is_open:
            raise ConnectionResetError
        self._parser, self._is_kept = httptools.HttpResponseParser(self), False
        self._headers, self._parts = dict[str, str](), list[bytes]()
        loop = asyncio.get_running_loop()
        self._waits = loop.create_future()
        too_late = loop.call_later(seconds, self._fail, TimeoutError())
        try:
            self._transport.write(request)
            return await self._waits
        finally:
            too_late.cancel()
            self._waits, self._used_at = None, time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer (httptools)."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Some of the answer's body (httptools)."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole (httptools)."""
        self._is_kept = self._parser.should_keep_alive()
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(_Reply(self._parser.get_status_code(), self._headers, b"".join(self._parts)))

    def close(self) -> None:
        """Closes it."""
        self._transport.close()

    def _fail(self, error: Exception) -> None:
        if self._waits is not None and not self._waits.done():
            self._waits.set_exception(error)


async def _credentials() -> ReadOnlyCredentials:
    """The process's credentials, found as every AWS tool finds them. Raises NoCredentialsError."""
    found = _found()
    if found is None:
        raise NoCredentialsError
    if getattr(found, "refresh_needed", bool)():
        # Refreshing reads an address or a file.
        frozen: ReadOnlyCredentials = await asyncio.to_thread(found.get_frozen_credentials)  # allowed: blocks
        return frozen
    return found.get_frozen_credentials()


@lru_cache(maxsize=1)
def _found() -> Credentials | None:
    # A function's environment has them: searching everywhere takes the time of thirty calls.
    credentials: Credentials | None = EnvProvider().load() or Session().get_credentials()
    return credentials


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@lru_cache(maxsize=4)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "dynamodb", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def body_of(params: Mapping[str, Any]) -> bytes:
    """What is asked, as JSON."""
    return _JSON.encode(params).encode()


def _in_base64(value: object) -> str:
    if not isinstance(value, bytes | bytearray):
        raise TypeError(f"{type(value).__name__} cannot be stored in DynamoDB")
    return base64.b64encode(value).decode()


_JSON = json.JSONEncoder(default=_in_base64, separators=(",", ":"))


def _parsed(answer: bytes) -> dict[str, Any]:
    try:
        # The hook costs time per object: it is left out when there are no bytes.
        parsed = json.loads(answer, object_hook=_with_bytes if b'"B"' in answer else None)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _with_bytes(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) == 1 and isinstance(encoded := value.get("B"), str):
        return {"B": base64.b64decode(encoded)}
    return value


def _error(answer: "_Reply", parsed: dict[str, Any]) -> dict[str, Any]:
    """An error in botocore's form; if its body is not JSON, the status is its code."""
    code = str(parsed.get("__type", answer.status)).rpartition("#")[2]
    message = parsed.get("message", parsed.get("Message", ""))
    return {
        **{name: value for name, value in parsed.items() if name in ("CancellationReasons", "Item")},
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {
            "HTTPStatusCode": answer.status,
            "HTTPHeaders": answer.headers,
            "RequestId": answer.headers.get("x-amzn-requestid", ""),
            "RetryAttempts": 0,
        },
    }
