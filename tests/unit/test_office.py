"""Office documents that are none, lie, or would fill whoever unpacks them: told before anybody does."""

import contextlib
import io
import struct
import time
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain import office
from minichat.domain.office import ExpandsTooFar, NotOffice, check
from tests.support.http.given_files import a_document

MB = 1024 * 1024
CPU_SECONDS = 20


def packed(*contents: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"word/{number}.xml", content)
    return written.getvalue()


def lying(content: bytes, size: int) -> bytes:
    """The same, whose directory says that its one entry has so many bytes unpacked."""
    at = content.rfind(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<L", size) + content[at + 28 :]


def test_documents_as_programs_write_them_pass() -> None:
    check(a_document())
    check(packed(b"x" * 1000, bytes(range(256)) * 100, b""))
    check(packed(b"x" * 1000, method=zipfile.ZIP_STORED))
    # XML of a large sheet: it shrinks to a thirtieth.
    rows = b"".join(
        b'<row r="%d"><c r="A%d" t="s"><v>%d</v></c></row>' % (n, n, n * 7919 % 65521) for n in range(200_000)
    )
    check(packed(rows))


@pytest.mark.parametrize(
    "content",
    [
        b"PK\3\4",
        b"",
        b"PK\3\4" + bytes(1000),
        packed(),
        packed(b"x" * 1000)[:-30],
        packed(b"x" * 1000, method=zipfile.ZIP_BZIP2),
        lying(packed(b"x" * 1000), 999),
        lying(packed(b"x" * 1000), 1001),
        lying(packed(b"x" * 1000), 0),
        # The directory is there, and what it names is not.
        b"\0" * 40 + packed(b"x" * 1000)[40:],
    ],
    # Never of the bytes: an archive holds the time of its making, and workers that collect at two times differ.
    ids=range(10),
)
def test_what_nobody_can_unpack_or_is_not_as_its_directory_says_is_no_document(content: bytes) -> None:
    with pytest.raises(NotOffice):
        check(content)


def test_what_expands_too_far_is_told_without_being_unpacked() -> None:
    began = time.process_time()
    bomb = packed(bytes(20 * MB))
    for content in (
        bomb,
        packed(*[b"x"] * (office.MAX_ENTRIES + 1)),
        lying(packed(b"x" * 1000), office.MAX_EXPANDED_BYTES + 1),
        # Its end is all that there is, and says that the directory were large.
        b"PK\5\6" + bytes(8) + struct.pack("<L", 2**31) + bytes(6),
    ):
        with pytest.raises(ExpandsTooFar):
            check(content)
    # One that says it were small: no more than that of it is looked at.
    with pytest.raises(NotOffice):
        check(lying(bomb, 10))
    assert time.process_time() - began < CPU_SECONDS


def test_entries_that_are_the_same_bytes_count_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many in a directory as there is room for, all of one file: no ratio of any of them is large."""
    monkeypatch.setattr(office, "MAX_EXPANDED_BYTES", 4 * MB)
    content = zlib.compress(bytes(range(256)) * 4096)
    one = packed(bytes(range(256)) * 4000, bytes(range(256)) * 4000)
    check(one)
    assert len(content) < MB
    with pytest.raises(ExpandsTooFar):
        check(packed(*[bytes(range(256)) * 4000] * 5))


@given(st.binary(max_size=400), st.integers(0, 400), st.binary(max_size=20))
def test_whatever_is_changed_in_a_document_it_passes_or_is_refused(content: bytes, at: int, changed: bytes) -> None:
    whole = packed(content, b"x" * 100)
    for broken in (whole[:at] + changed + whole[at + len(changed) :], whole[:at] + changed + whole[at:]):
        with contextlib.suppress(NotOffice, ExpandsTooFar):
            check(broken)
