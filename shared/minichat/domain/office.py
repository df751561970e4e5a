"""How far an Office document expands: it is a ZIP, and whoever reads it for the user unpacks it (zip bombs). Pure.

What its directory says is compared with what unpacks, as far as a document may expand and no further; nothing is kept.
"""

import io
import struct
import zipfile
import zlib

MAX_EXPANDED_BYTES = 256 * 1024 * 1024
"""Of everything in a document together: ten times the largest file accepted by default."""
MAX_ENTRIES = 10_000
MAX_RATIO = 200
"""Bytes that a packed byte may become, in entries above a megabyte. XML of real sheets stays below 100."""
RATIO_FROM_BYTES = 1024 * 1024

_END, _HEAD = b"PK\x05\x06", b"PK\x03\x04"
_DIRECTORY_BYTES_AT, _MAX_DIRECTORY_BYTES = 12, 4 * 1024 * 1024
_HEAD_BYTES, _NAME_LENGTH_AT = 30, 26
_PIECE = 65_536
_BROKEN = (zipfile.BadZipFile, struct.error, zlib.error, ValueError, NotImplementedError, OverflowError, EOFError)


class NotOffice(Exception):
    """It cannot be unpacked, or is not packed as its directory says."""


class ExpandsTooFar(Exception):
    """More than may be unpacked."""


def check(content: bytes) -> None:
    """Raises NotOffice or ExpandsTooFar."""
    try:
        _check(content)
    except _BROKEN as error:
        raise NotOffice from error


def _check(content: bytes) -> None:
    end = content.rfind(_END)
    # Reading the directory takes many times its size: first its end must say that it is small.
    if end >= 0 and struct.unpack_from("<L", content, end + _DIRECTORY_BYTES_AT)[0] > _MAX_DIRECTORY_BYTES:
        raise ExpandsTooFar
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
    if not entries:
        raise NotOffice
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_EXPANDED_BYTES:
        raise ExpandsTooFar
    for entry in entries:
        if entry.file_size > max(RATIO_FROM_BYTES, entry.compress_size * MAX_RATIO):
            raise ExpandsTooFar
        if _unpacked_bytes(content, entry) != entry.file_size:
            raise NotOffice


def _unpacked_bytes(content: bytes, entry: zipfile.ZipInfo) -> int:
    """How many bytes an entry has unpacked, counted at most a piece beyond what the directory says."""
    at = entry.header_offset
    if content[at : at + 4] != _HEAD:
        raise NotOffice
    name, extra = struct.unpack_from("<HH", content, at + _NAME_LENGTH_AT)
    start = at + _HEAD_BYTES + name + extra
    packed = memoryview(content)[start : start + entry.compress_size]
    if len(packed) != entry.compress_size:
        raise NotOffice
    if entry.compress_type == zipfile.ZIP_STORED:
        return len(packed)
    if entry.compress_type != zipfile.ZIP_DEFLATED:
        # Office writes no other, and not every reader knows another.
        raise NotOffice
    inflate, size, left = zlib.decompressobj(-zlib.MAX_WBITS), 0, bytes(packed)
    while size <= entry.file_size and not inflate.eof:
        piece = inflate.decompress(left, _PIECE)
        left = inflate.unconsumed_tail
        if not (piece or left or inflate.eof):
            raise NotOffice
        size += len(piece)
    return size
