"""The file of a multipart body, however its bytes are cut on the way."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from minichat.domain.errors import FileTooLarge, InvalidRequest
from minichat.http.multipart import FRAME_BYTES, MAX_FILE_BYTES, Uploaded, read_file
from tests.support.http.gateway import proxy_event, wire


def read(
    chunks: Sequence[bytes], *, content_type: str = "multipart/form-data; boundary=b", ends: bool = True
) -> Uploaded:
    """What is made of a body that comes in these chunks; one that does not end is broken off."""
    left = [*chunks]

    async def receive() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or not ends}
        return {"type": "http.disconnect"}

    scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=b")]}
    return anyio.run(read_file, Request(scope, receive))


def a_part(content: bytes, name: str = "file", filename: str = "a.pdf", kind: str = "application/pdf") -> bytes:
    head = f'content-disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: {kind}\r\n\r\n'
    return b"--b\r\n" + head.encode() + content + b"\r\n"


MOST = MAX_FILE_BYTES + FRAME_BYTES
CASES = Path(__file__).parents[1] / "cases"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a-part-without-a-type.txt", Uploaded("notes.txt", "", b"hello")),
        ("a-name-of-its-own-charset.txt", Uploaded("€ rates.txt", "text/plain", b"hello")),
    ],
)
def test_the_prepared_bodies_are_read(name: str, expected: Uploaded) -> None:
    raw = (CASES / name).read_bytes().replace(b"--X", b"--b")
    assert read([raw]) == expected


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"filename=a.txt", "a.txt"),
        (b"filename=a.txt; filename*=UTF-8''%e2%82%ac.txt", "€.txt"),
        (b"filename*=utf-8'en'%e2%82%ac.txt; filename=a.txt", "€.txt"),
        (b"FILENAME*=iso-8859-1''%a3.txt", "£.txt"),
        (b"filename*=\"UTF-8''%e2%82%ac.txt\"", "€.txt"),
        # A .NET client says the same name twice, the first time as in mail.
        (b"filename=\"=?utf-8?B?w6QudHh0?=\"; filename*=utf-8''%C3%A4.txt", "ä.txt"),
        (b"filename=\"; filename*=UTF-8''evil.txt\"", "; filename*=UTF-8''evil.txt"),
        (b'filename="a\\"; filename*=x"; filename*=UTF-8\'\'b.txt', "b.txt"),
        # What cannot be understood leaves the other name.
        (b"filename=a.txt; filename*=UTF-8''%ff.txt", "a.txt"),
        (b"filename=a.txt; filename*=UTF-7''b.txt", "a.txt"),
        (b"filename=a.txt; filename*=UTF-8''", "a.txt"),
        (b"filename=a.txt; filename*=b.txt", "a.txt"),
        (b"filename*=UTF-8''%ff.txt", None),
        (b'filename="' + "naïve café.md".encode() + b'"', "naïve café.md"),
        (b'filename="' + "naïve €.md".encode("cp1252") + b'"', "naïve €.md"),
        (b'filename="a\xef\x81.md"', "aï\ufffd.md"),
        # As they are: nobody can tell them from names that look so.
        (b'filename="a%22b.txt"', "a%22b.txt"),
        (b'filename="=?utf-8?B?w6QudHh0?="', "=?utf-8?B?w6QudHh0?="),
        (b"", None),
    ],
)
def test_a_name_is_what_the_client_meant(said: bytes, name: str | None) -> None:
    head = b'content-disposition: form-data; name="file"; ' + said
    assert read([b"--b\r\n" + head + b"\r\n\r\nhello\r\n--b--\r\n"]) == Uploaded(name, "", b"hello")


@given(st.binary(max_size=80).filter(lambda said: not set(said) & set(b"\r\n")))
def test_any_disposition_is_a_name_or_none(said: bytes) -> None:
    head = b'content-disposition: form-data; name="file"; filename*=' + said
    try:
        found = read([b"--b\r\n" + head + b"\r\n\r\nhello\r\n--b--\r\n"])
    except InvalidRequest:
        return
    assert found.filename is None or found.filename.encode()


def cut(body: bytes, at: set[int]) -> list[bytes]:
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in at)})
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@given(
    st.binary(max_size=300).filter(lambda content: b"--b" not in content), st.sets(st.integers(0, 1000), max_size=20)
)
def test_a_file_is_what_was_sent_wherever_its_body_is_cut(content: bytes, at: set[int]) -> None:
    body = a_part(b"x", "note") + a_part(content, filename="é.pdf") + a_part(b"y", "more") + b"--b--\r\n"
    assert read(cut(body, at)) == Uploaded("é.pdf", "application/pdf", content)


@given(st.integers(0, 200))
def test_a_body_that_ends_too_soon_is_refused(length: int) -> None:
    whole = a_part(b"%PDF-1.7") + b"--b--"
    body = whole[: min(length, len(whole) - 1)]
    for ends in (True, False):
        with pytest.raises(InvalidRequest) as refused:
            read([body], ends=ends)
        assert refused.value.errors[0].field == "multipart"


@given(st.binary(max_size=400))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read([body])


def test_no_more_is_read_than_a_file_may_have() -> None:
    megabyte, most = bytes(1_000_000), bytes(MAX_FILE_BYTES)
    with pytest.raises(FileTooLarge, match="uploads"):
        read([a_part(b"")[:-2], most, b"x", *[megabyte] * 100])
    assert len(read([a_part(b"")[:-2], most, b"\r\n--b--\r\n"]).content) == MAX_FILE_BYTES


def test_the_largest_form_fits_into_an_event_of_lambda_with_the_longest_head() -> None:
    """Of the head API Gateway takes 10,240 bytes, the request line among them; quotes are two bytes in JSON."""
    for path, headers in (("/" + "x" * 8_000, {}), ("/", {"x-long": '"' * 8_000}), ("/", {"user-agent": "x" * 8_000})):
        said = {"Content-Type": "multipart/form-data; boundary=b", **headers}
        event = proxy_event("POST", path, "t" * 1500, bytes(MAX_FILE_BYTES + FRAME_BYTES), headers=said)
        assert len(wire(event)) <= 6 * 1024 * 1024


def test_what_is_around_the_file_has_a_limit_too() -> None:
    with pytest.raises(FileTooLarge):
        read([a_part(bytes(FRAME_BYTES), "note"), b"--b--\r\n"])
    many = b"".join(a_part(b"", "x" * 100) for _ in range(600))
    with pytest.raises(FileTooLarge):
        read([many, b"--b--\r\n"])


@pytest.mark.parametrize(
    ("length", "refused", "read"),
    [(10_000_000_000, FileTooLarge, 0), (MOST + 1, FileTooLarge, 0), (MOST, InvalidRequest, 1), (1, InvalidRequest, 1)],
)
def test_a_declared_length_is_believed_only_when_it_is_too_much(
    length: int, refused: type[Exception], read: int
) -> None:
    declared = (b"content-length", str(length).encode())
    scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=b"), declared]}
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"no form", "more_body": False}

    with pytest.raises(refused):
        anyio.run(read_file, Request(scope, receive))
    assert asked == read


@pytest.mark.parametrize("header", [b"X-A: " + b"a" * 1000, b"X-" + b"a" * 1000 + b": a"], ids=["values", "names"])
def test_headers_that_have_no_end_are_refused(header: bytes) -> None:
    note = b'--b\r\ncontent-disposition: form-data; name="note"\r\n' + header + b"\r\n\r\n\r\n"
    file = a_part(b"hello") + b"--b--\r\n"
    assert read([note * 20 + file]).content == b"hello"
    with pytest.raises((InvalidRequest, FileTooLarge)):
        read([note * (FRAME_BYTES // 1000 + 1), file])
