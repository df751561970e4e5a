"""Bodies that are refused, at real sockets: every client sees why, whichever way round it writes and reads."""

import itertools
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.http.client import Stack, User
from tests.support.http.given_files import MB, PDF
from tests.support.patience import PATIENCE

LARGE = 30 * MB
HEAD = b'Content-Disposition: form-data; name="file"; filename="a.pdf"\r\nContent-Type: application/pdf'
FORM = b"--b\r\n" + HEAD + b"\r\n\r\n" + PDF


class Client:
    """A client that does one thing after the other."""

    def __init__(self, stack: Stack, path: str, token: str | None, **headers: str) -> None:
        url = urlsplit(f"{stack.base_url}{path}")
        said = {"host": url.netloc, "content-type": "multipart/form-data; boundary=b", **headers}
        if token is not None:
            said["authorization"] = f"Bearer {token}"
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in said.items())
        self._socket = socket.create_connection((url.hostname or "", url.port or 0), timeout=PATIENCE)
        self._socket.sendall(f"POST {url.path} HTTP/1.1\r\n{head}\r\n".encode())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def write(self, *parts: bytes) -> None:
        """Writes parts of the body."""
        for part in parts:
            self._socket.sendall(part)

    def problem(self) -> dict[str, Any]:
        """Reads the answer, which is a problem."""
        with self._socket.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 4")
            length = 0
            while line := answer.readline().lower().strip():
                name, _, value = line.partition(b":")
                length = int(value) if name == b"content-length" else length
            return dict(json.loads(answer.read(length)))


@pytest.fixture
def token(stack: Stack) -> str:
    return stack.token("t-large", "u-large")


@pytest.fixture
def path(stack: Stack, token: str) -> Iterator[str]:
    with User(stack.base_url, token) as user:
        yield f"/chats/{user.new_chat()}/attachments"


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.holds("contract.body-read")
def test_a_client_that_writes_a_whole_announced_file_before_it_reads_sees_its_413(
    stack: Stack, path: str, token: str, connection: str
) -> None:
    with Client(stack, path, token, connection=connection, content_length=str(len(FORM) + LARGE)) as client:
        client.write(FORM, *[bytes(MB)] * (LARGE // MB))
        assert client.problem()["code"] == "file_too_large"


def test_a_client_that_writes_whole_chunks_before_it_reads_sees_its_413(stack: Stack, path: str, token: str) -> None:
    with Client(stack, path, token, connection="close", transfer_encoding="chunked") as client:
        chunk = b"%x\r\n" % MB + bytes(MB) + b"\r\n"
        client.write(b"%x\r\n" % len(FORM), FORM, b"\r\n", *[chunk] * (LARGE // MB), b"0\r\n\r\n")
        assert client.problem()["code"] == "file_too_large"


def test_so_does_one_that_sends_too_large_a_message_or_no_token(stack: Stack, path: str, token: str) -> None:
    send = path.replace("attachments", "messages:stream")
    said = {"content_type": "application/json", "connection": "close", "content_length": str(LARGE)}
    for given, code in ((token, "request_too_large"), (None, "unauthenticated")):
        with Client(stack, send, given, **said) as client:
            client.write(*[b"x" * MB] * (LARGE // MB))
            assert client.problem()["code"] == code


def test_a_client_that_reads_before_it_writes_has_its_answer_at_once(stack: Stack, path: str, token: str) -> None:
    for more in ({}, {"expect": "100-continue"}):
        with Client(stack, path, token, content_length=str(LARGE), **more) as client:
            # Not leave to send it all (100), and not after all of it came.
            assert client.problem()["code"] == "file_too_large"


@pytest.mark.holds("contract.body-read")
def test_a_client_that_never_ends_its_body_is_left(stack: Stack, path: str, token: str) -> None:
    with Client(stack, path, token, connection="close", transfer_encoding="chunked") as client:
        chunk = b"%x\r\n" % MB + bytes(MB) + b"\r\n"
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            client.write(*itertools.repeat(chunk, 100_000))
