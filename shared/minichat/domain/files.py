"""What a user may give to a chat: which types, under which names, how large (context-attachments-providers 3). Pure."""

import codecs
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from minichat.domain.attachment import Attachment, AttachmentKind
from minichat.domain.day_counts import DayCounts
from minichat.domain.errors import FieldError as Wrong
from minichat.domain.errors import FileTooLarge, InvalidRequest, UnsupportedFileType
from minichat.domain.rates import UNLIMITED, Rates
from minichat.domain.text import is_blank

Purpose = Literal["file_search", "code_interpreter"]

MAX_NAME = 255
UNNAMED = "upload"
HEAD_BYTES = 1024
"""How much of a file's beginning decides whether it is what it says."""

_CSV, _PLAIN = "text/csv", "text/plain"
_OFFICE = "application/vnd.openxmlformats-officedocument"
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class FileType:
    """An accepted type: its canonical name, the extension that providers know it by, and what it is for."""

    content_type: str
    extension: str
    kind: AttachmentKind = "document"
    purposes: tuple[Purpose, ...] = ("file_search",)


_TYPES = (
    FileType("application/pdf", "pdf"),
    FileType(_PLAIN, "txt"),
    FileType("text/markdown", "md"),
    FileType("text/html", "html"),
    FileType(f"{_OFFICE}.wordprocessingml.document", "docx"),
    FileType(f"{_OFFICE}.presentationml.presentation", "pptx"),
    FileType(f"{_OFFICE}.spreadsheetml.sheet", "xlsx", purposes=("code_interpreter",)),
    FileType("application/json", "json"),
    FileType("text/x-python", "py"),
    FileType("text/x-java", "java"),
    FileType("text/javascript", "js"),
    FileType("text/typescript", "ts"),
    FileType("text/x-rust", "rs"),
    FileType("text/x-go", "go"),
    FileType("text/x-csharp", "cs"),
    FileType("text/x-ruby", "rb"),
    FileType("text/x-sql", "sql"),
    FileType("image/png", "png", "image", ()),
    FileType("image/jpeg", "jpg", "image", ()),
    FileType("image/webp", "webp", "image", ()),
    FileType("image/gif", "gif", "image", ()),
)
TYPES: Mapping[str, FileType] = {one.content_type: one for one in _TYPES}
EXTENSIONS: Mapping[str, str] = {one.extension: one.content_type for one in _TYPES} | {
    "markdown": "text/markdown",
    "htm": "text/html",
    "mjs": "text/javascript",
    "mts": "text/typescript",
    "jpeg": "image/jpeg",
    "csv": _CSV,
}


_BEGINNINGS: Mapping[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    # They are ZIPs.
    **{name: (b"PK\x03\x04",) for name in TYPES if name.startswith(_OFFICE)},
}


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Bytes of one file of each kind; a chat's documents, and the bytes of all its files; what a user may upload in a
    day, for how many days that is remembered, and how fast."""

    document_bytes: int
    image_bytes: int
    documents_per_chat: int
    bytes_per_chat: int
    per_day: DayCounts = field(default_factory=DayCounts)
    retention_days: int = 400
    rates: Rates = UNLIMITED

    def of(self, kind: AttachmentKind) -> int:
        """Bytes that a file of this kind may have."""
        return self.image_bytes if kind == "image" else self.document_bytes

    def with_model(self, max_file_size_mb: int | None) -> "FileLimits":
        """These limits, with no file larger than the chat's model takes."""
        if max_file_size_mb is None:
            return self
        most = max_file_size_mb * 1024 * 1024
        return replace(self, document_bytes=min(self.document_bytes, most), image_bytes=min(self.image_bytes, most))


def type_of(declared: str, filename: str, *, allow_csv: bool) -> FileType:
    """The accepted type of a file: the declared one, or its extension's when the declared one is none of ours.

    What a client declares is a hint: browsers, libraries and systems disagree, and a `.ts` is a video to most of them.
    Without a declaration or a telling name it is plain text (RFC 7578, 4.4). Parameters and case of the declaration do
    not count; CSV becomes plain text where that is allowed. Raises UnsupportedFileType.
    """
    name = declared.partition(";")[0].strip().lower()
    if name not in {*TYPES, _CSV}:
        stem, dot, extension = filename.rpartition(".")
        name = (EXTENSIONS.get(extension.lower(), name) if dot and stem else name) or _PLAIN
    if name == _CSV and allow_csv:
        name = _PLAIN
    found = TYPES.get(name)
    if found is None:
        raise UnsupportedFileType(f"Files of type {name[:100]!r} are not accepted.")
    return found


def clean_name(given: str | None) -> str:
    """The name that a file is shown by: no path, nothing invisible, at most 255 characters, its extension kept."""
    last = (given or "").replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in last if unicodedata.category(c) not in {"Cc", "Cs"} and c not in _BIDI).strip()
    if is_blank(name.strip(".")):
        return UNNAMED
    if len(name) <= MAX_NAME:
        return name
    stem, dot, extension = name.rpartition(".")
    room = MAX_NAME - 1 - len(extension)
    return f"{stem[:room]}.{extension}" if dot and stem and extension and room > 0 else name[:MAX_NAME]


def name_at_provider(attachment: Attachment) -> str:
    """The name of an attachment's file at its provider: it reveals nothing of the content, and is unique."""
    return f"{attachment.chat_id}_{attachment.attachment_id}.{TYPES[attachment.content_type].extension}"


def check_size(file_type: FileType, size: int, limits: FileLimits) -> None:
    """Raises InvalidRequest for an empty file, FileTooLarge for one above the limit of its kind."""
    if size <= 0:
        raise InvalidRequest(Wrong("file", "The file is empty.", "empty_file"))
    most = limits.of(file_type.kind)
    if size > most:
        raise FileTooLarge(f"A file of this kind has at most {most} bytes.")


def is_what_it_says(file_type: FileType, content: bytes) -> bool:
    """Whether a file begins as its type does; a text, whether it begins with characters."""
    head = content[:HEAD_BYTES]
    if file_type.content_type == "application/pdf":
        # Readers accept a few bytes before it.
        return b"%PDF-" in head
    if file_type.content_type == "image/webp":
        return head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    beginnings = _BEGINNINGS.get(file_type.content_type)
    return _is_text(head) if beginnings is None else head.startswith(beginnings)


def is_office(file_type: FileType) -> bool:
    """Whether files of this type are packed (`domain.office`)."""
    return file_type.content_type.startswith(_OFFICE)


def _is_text(head: bytes) -> bool:
    """Whether its only zeros are those that UTF-16 puts into the same half of each character."""
    return head.startswith(_BYTE_ORDER_MARKS) or any(0 not in half for half in (head[::2], head[1::2]))
