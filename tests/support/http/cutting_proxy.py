"""A proxy that cuts connections where networks do: in the request, in the headers, between events, in a character."""

import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from tests.support.patience import PATIENCE

Place = Literal[
    "request", "unanswered", "head", "opened", "between", "framing", "id", "name", "data", "character", "end"
]
PLACES: tuple[Place, ...] = get_args(Place)
"""Every class of byte at which a connection can be cut."""

WITHOUT_NEWS = frozenset({"request", "unanswered", "head", "opened"})
"""Places before any event, whatever was told before."""

_STREAMED = re.compile(rb"POST \S+(messages(:|%3A)stream|/retry|:retry) |GET \S+/stream[ ?]|PATCH \S+/turns/\S+ ")
_CLOSE = b"connection: close\r\n"
_FOUND = {
    "head": re.compile(rb"\AHTTP/1.1 \d"),
    "opened": re.compile(rb"\r\n\r\n"),
    "between": re.compile(rb""),
    "framing": re.compile(rb"\r"),
    "id": re.compile(rb"id: \d"),
    "name": re.compile(rb"event: \w"),
    "data": re.compile(rb'data: \{"\w'),
    "character": re.compile(rb"[\xc2-\xdf]|[\xe0-\xef].?|[\xf0-\xf4].{0,2}?", re.DOTALL),
    "end": re.compile(rb"event: (done|error)\n[^\n]*\n\n"),
}


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a connection is cut: at the first such place behind so many events of this connection, 1 at least.

    `abrupt`: by a reset, as when a machine dies, and not by a proper end.
    """

    place: Place
    events: int = 1
    abrupt: bool = False

    def position(self, told: bytes) -> int | None:
        """How much of an answer passes; None while the place has not come."""
        start = 0 if self.place in WITHOUT_NEWS else _after(told, self.events)
        found = None if start is None else _FOUND[self.place].search(told, start)
        return None if found is None else found.end()


def _after(told: bytes, events: int) -> int | None:
    """Where the bytes behind so many events begin."""
    head = told.find(b"\r\n\r\n")
    if head < 0:
        return None
    at = head + 4
    for _ in range(events):
        at = told.find(b"\n\n", at) + 2
        if at < 2:
            return None
    return at


def at_random(seed: int, most_events: int = 4) -> Callable[[bytes], Cut]:
    """A plan that cuts every stream at every kind of place in turn, after up to so many events; deterministic.

    Of one chat at most three streams in a row are cut before they tell anything new: a client may give up some time.
    """
    chance = random.Random(seed)
    left: list[Place] = []
    futile: Counter[bytes] = Counter()

    def planned(request: bytes) -> Cut:
        chat = re.search(rb"/chats/([\w-]+)", request)
        key = chat[1] if chat else b""
        if not left:
            left.extend(chance.sample(PLACES, len(PLACES)))
        place = left.pop()
        if place in WITHOUT_NEWS and futile[key] >= 3:
            place = "character"
        events = chance.randint(1, most_events)
        futile[key] = futile[key] + 1 if place in WITHOUT_NEWS else 0
        return Cut(place, events, abrupt=chance.random() < 0.5)

    return planned


class CuttingProxy:
    """A proxy before one server, for the time of a `with`; `url` is where the API is behind it.

    `plan` says for the head of each request for a stream where its connection is cut, and None for none; whatever is no
    stream passes.
    """

    def __init__(self, base_url: str, plan: Callable[[bytes], Cut | None]) -> None:
        address = urlsplit(base_url)
        self._server = (address.hostname or "", address.port or 80)
        self._path = address.path
        self._plan = plan
        self._lock = threading.Lock()
        self.cuts: Counter[Place] = Counter()

    def __enter__(self) -> "CuttingProxy":
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{self._path}"
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(PATIENCE)
            head, body = _request(client)
            if not head:
                return
            with self._lock:
                cut = self._plan(head) if _STREAMED.match(head) else None
            if cut is not None and cut.place == "request":
                self._cut(client, cut)
                return
            with socket.create_connection(self._server, PATIENCE) as server:
                # Each connection has one request, so that a cut hits no other.
                server.sendall(head[:-2] + _CLOSE + b"\r\n" + body)
                for passing, is_cut in _passing(server, cut):
                    client.sendall(passing)
                    if is_cut and cut is not None:
                        self._cut(client, cut)
                        return

    def _cut(self, client: socket.socket, cut: Cut) -> None:
        with self._lock:
            self.cuts[cut.place] += 1
        if cut.abrupt:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


def _request(client: socket.socket) -> tuple[bytes, bytes]:
    """Head, without any `Connection` header, and body of the next request; empty when there is none."""
    told = b""
    while b"\r\n\r\n" not in told:
        more = client.recv(65536)
        if not more:
            return b"", b""
        told += more
    head, _, body = told.partition(b"\r\n\r\n")
    head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head) + b"\r\n\r\n"
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        while not body.endswith(b"0\r\n\r\n"):
            body += client.recv(65536)
        return head, body
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while len(body) < (int(length[1]) if length else 0):
        body += client.recv(65536)
    return head, body


def _passing(server: socket.socket, cut: Cut | None) -> Iterator[tuple[bytes, bool]]:
    """What passes of an answer, piece by piece, and whether the connection is cut behind it."""
    told, passed = b"", 0
    while more := server.recv(65536):
        told += more
        if cut is not None and cut.place == "unanswered":
            yield b"", True
        at = None if cut is None else cut.position(told)
        if at is not None:
            yield told[passed:at], True
        yield told[passed:], False
        passed = len(told)
