"""The one file of a multipart/form-data body, counted while it is read, whatever `Content-Length` says."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from minichat.domain.errors import FieldError, FileTooLarge, InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FILE_BYTES = 4_600_000
"""What is sure to fit into the event of a synchronous invocation (AWS limit: 6 MiB), where a form is base64, four bytes
for three. The event also holds the rest of the form, and under 64 KiB for the rest of the request: from the head
(10,240 bytes at API Gateway) each header twice and the path four times, and the gateway's data about the caller."""
FRAME_BYTES = 65_536
"""Bytes allowed for the parts around the file."""
FIELD = "file"

_CHARSETS = {b"utf-8", b"iso-8859-1"}

# Text within quotes is never a parameter, whatever it looks like.
_PARAMETER = re.compile(rb""";\s*(?P<name>[^\s=;"]+)\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|[^\s;"]*)""")


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file as received; `content_type` is empty when none was declared."""

    filename: str | None
    content_type: str
    content: bytes


async def read_file(request: Request) -> Uploaded:
    """The file in the body's one part named `file`; other parts are skipped.

    Raises InvalidRequest when the body is not multipart, is cut off, or has no such part, or two of them; FileTooLarge.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise _invalid("content-type", "The body must be multipart/form-data with a boundary.", "boundary_required")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_FILE_BYTES + FRAME_BYTES:
        raise _too_large()
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in _chunks(request):
            parser.write(chunk)
            if len(form.content) > MAX_FILE_BYTES or form.passed_over > FRAME_BYTES:
                raise _too_large()
        parser.finalize()
    except FormParserError:
        raise _invalid("multipart", "The body is not well-formed multipart/form-data.", "multipart_error") from None
    if not form.ended:
        raise _invalid("multipart", "The body ends before its last boundary.", "multipart_error")
    return form.file()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise _invalid("multipart", "The body was cut off.", "multipart_error") from None
    except HTTPException as error:
        # The layer that reads requests has a limit of its own.
        raise (_too_large() if error.status_code == 413 else error) from None


@dataclass(slots=True)
class _Form:
    """The state of parsing; only the length is kept of parts that are not the file."""

    content: bytearray = field(default_factory=bytearray)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    passed_over: int = 0
    ended: bool = False
    _name: bytes = b""
    _value: bytes = b""
    _part: list[tuple[bytes, bytes]] = field(default_factory=list)
    _is_file: bool = False
    _files: int = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def file(self) -> Uploaded:
        if self._files != 1:
            what = "no part" if not self._files else f"{self._files} parts"
            raise _invalid(FIELD, f"There must be one part named {FIELD!r}; the body has {what} of that name.", "file")
        content_type = _value_of(self.headers, b"content-type").decode("latin-1")
        return Uploaded(_filename(_value_of(self.headers, b"content-disposition")), content_type, bytes(self.content))

    def _begin(self) -> None:
        self._part = []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self.passed_over += end - start

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self.passed_over += end - start

    def _header_end(self) -> None:
        self._part.append((self._name.lower(), self._value))
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(_value_of(self._part, b"content-disposition"))
        self._is_file = options.get(b"name") == FIELD.encode()
        if self._is_file:
            self._files += 1
            self.headers = self._part

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file and self._files == 1:
            self.content += data[start:end]
        else:
            self.passed_over += end - start

    def _end(self) -> None:
        self.ended = True


def _filename(disposition: bytes) -> str | None:
    """The name in a part's Content-Disposition; one with a charset (RFC 8187) takes precedence.

    RFC 7578 forbids those in forms, but clients send them. Other names are decoded as UTF-8 if they are valid, else as
    the old encoding of Windows.
    """
    for parameter in _PARAMETER.finditer(disposition):
        if parameter["name"].lower() == b"filename*" and (name := _decoded(parameter["value"])):
            return name
    given = parse_options_header(disposition)[1].get(b"filename")
    if given is None:
        return None
    try:
        return given.decode()
    except UnicodeDecodeError:
        return given.decode("cp1252", errors="replace")


def _decoded(extended: bytes) -> str:
    """The text of an extended value, as in UTF-8''%E2%82%AC; empty when it is not one."""
    charset, _, rest = extended.strip(b'"').partition(b"'")
    _, language_ends, text = rest.partition(b"'")
    if not language_ends or charset.lower() not in _CHARSETS:
        return ""
    try:
        return unquote_to_bytes(text).decode(charset.decode())
    except UnicodeDecodeError:
        return ""


def _value_of(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next((value for header, value in headers if header == name), b"")


def _invalid(name: str, message: str, code: str) -> InvalidRequest:
    return InvalidRequest(FieldError(name, message, code))


def _too_large() -> FileTooLarge:
    return FileTooLarge(
        f"A file in a request has at most {MAX_FILE_BYTES} bytes. "
        "For a larger one, POST …/attachments/uploads answers with a form to post it with."
    )
