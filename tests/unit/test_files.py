"""What may be given to a chat: types, names, sizes."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.errors import FileTooLarge, InvalidRequest, UnsupportedFileType
from minichat.domain.files import (
    EXTENSIONS,
    MAX_NAME,
    TYPES,
    FileLimits,
    check_size,
    clean_name,
    is_what_it_says,
    type_of,
)

LIMITS = FileLimits(document_bytes=1000, image_bytes=100, documents_per_chat=50, bytes_per_chat=10_000)
HEADS = {
    "application/pdf": b"%PDF-1.7\n",
    "image/png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 ",
}


@given(st.sampled_from(sorted(TYPES)), st.text("; =abc/", max_size=20), st.booleans())
def test_every_accepted_type_is_known_in_any_case_and_with_any_parameter(name: str, tail: str, shout: bool) -> None:
    declared = f"  {name.upper() if shout else name} ;{tail}"
    assert type_of(declared, "x", allow_csv=False) is TYPES[name]


@given(st.sampled_from(sorted(EXTENSIONS)), st.text(min_size=1))
def test_what_is_just_bytes_is_known_by_its_extension(extension: str, stem: str) -> None:
    found = type_of("application/octet-stream", f"{stem}.{extension.upper()}", allow_csv=True)
    assert found.content_type == ("text/plain" if extension == "csv" else EXTENSIONS[extension])


@pytest.mark.parametrize("name", ["md", ".pdf", "noext", "archive.zip", "report.pdf.exe", "", "pdf."])
def test_an_extension_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedFileType):
        type_of("application/octet-stream", name, allow_csv=True)


@given(st.text())
def test_a_type_is_accepted_or_refused_and_nothing_else_happens(declared: str) -> None:
    known = declared.partition(";")[0].strip().lower() in {*TYPES, "text/csv", ""}
    try:
        type_of(declared, "a.unknown", allow_csv=True)
    except UnsupportedFileType:
        assert not known
    else:
        assert known


DECLARED = {
    "a.ts": ("video/mp2t", "video/vnd.dlna.mpeg-tts", "text/vnd.trolltech.linguist"),
    "a.js": ("application/javascript", "application/x-javascript"),
    "a.rs": ("application/rls-services+xml",),
    "a.rb": ("application/x-ruby",),
    "a.sql": ("application/sql", "application/x-sql"),
    "A.java": ("text/x-java-source",),
    "a.py": ("text/x-python-script",),
    "a.md": ("text/x-markdown",),
    "a.docx": ("application/x-zip-compressed", "application/zip"),
    "i.jpg": ("image/jpg", "image/pjpeg"),
    "a.csv": ("application/vnd.ms-excel",),
}
"""Types as browsers, libraries and systems declare them, by a name for which they do."""


@pytest.mark.parametrize(("name", "declared"), [(name, one) for name, all_ in DECLARED.items() for one in all_])
def test_a_type_that_is_none_of_ours_is_decided_by_the_name(name: str, declared: str) -> None:
    extension = name.rpartition(".")[2]
    expected = "text/plain" if extension == "csv" else EXTENSIONS[extension]
    assert type_of(declared, name, allow_csv=True).content_type == expected
    assert type_of(f"{declared.upper()}; charset=utf-8", name, allow_csv=True).content_type == expected


@pytest.mark.parametrize(
    ("name", "found"),
    [("notes.txt", "text/plain"), ("a.pdf", "application/pdf"), ("README", "text/plain"), ("a.log", "text/plain")],
)
def test_what_nobody_declared_is_decided_by_the_name_and_else_plain_text(name: str, found: str) -> None:
    for nothing in ("", " ", ";charset=utf-8"):
        assert type_of(nothing, name, allow_csv=True).content_type == found


def test_a_type_of_ours_counts_more_than_the_name() -> None:
    assert type_of("text/plain", "a.md", allow_csv=True).content_type == "text/plain"


def test_csv_is_plain_text_where_it_is_allowed() -> None:
    assert type_of("text/csv", "a.csv", allow_csv=True).content_type == "text/plain"
    with pytest.raises(UnsupportedFileType):
        type_of("text/csv", "a.csv", allow_csv=False)


@given(st.one_of(st.none(), st.text(), st.text(st.sampled_from("a./\\\0\n\u202e \ud800é"), max_size=600)))
def test_a_name_has_no_path_nothing_invisible_and_at_most_255_characters(given_name: str | None) -> None:
    name = clean_name(given_name)
    assert 1 <= len(name) <= MAX_NAME
    assert not set(name) & set("/\\\0\n\u202e")
    assert not any(unicodedata.category(c) in {"Cc", "Cs"} for c in name)
    assert name.strip(".") != ""
    name.encode()
    assert clean_name(name) == name


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ann\\plan.docx", "plan.docx"),
        ("a" * 300 + ".pdf", "a" * 251 + ".pdf"),
        ("x." + "e" * 300, "x." + "e" * 253),
        ("xy." + "e" * 253, "x." + "e" * 253),
        ("xy." + "e" * 254, "xy." + "e" * 252),
        (".." * 3, "upload"),
        ("folder/", "upload"),
        ("gpj\u202eexe.txt", "gpjexe.txt"),
        ("naïve café.md", "naïve café.md"),
    ],
)
def test_names_as_they_are_shown(given_name: str, shown: str) -> None:
    assert clean_name(given_name) == shown


@given(st.text(st.characters(categories=["L"]), min_size=300), st.sampled_from(sorted(EXTENSIONS)))
def test_a_name_that_is_cut_keeps_its_extension(stem: str, extension: str) -> None:
    assert clean_name(f"{stem}.{extension}").endswith(f".{extension}")


@given(st.sampled_from(sorted(TYPES)), st.integers(-5, 2000))
def test_the_limit_of_a_file_is_that_of_its_kind(name: str, size: int) -> None:
    file_type = TYPES[name]
    most = 100 if name.startswith("image/") else 1000
    if size <= 0:
        with pytest.raises(InvalidRequest):
            check_size(file_type, size, LIMITS)
    elif size > most:
        with pytest.raises(FileTooLarge, match=str(most)):
            check_size(file_type, size, LIMITS)
    else:
        check_size(file_type, size, LIMITS)


def test_the_smaller_limit_of_deployment_and_model_counts() -> None:
    mb = 1024 * 1024
    limits = FileLimits(document_bytes=25 * mb, image_bytes=5 * mb, documents_per_chat=50, bytes_per_chat=100 * mb)
    assert limits.with_model(None) == limits
    smaller = limits.with_model(10)
    assert (smaller.document_bytes, smaller.image_bytes) == (10 * mb, 5 * mb)
    assert (smaller.documents_per_chat, smaller.bytes_per_chat) == (50, 100 * mb)


@pytest.mark.parametrize("declared", sorted(HEADS))
@pytest.mark.parametrize("actual", sorted(HEADS))
def test_a_file_begins_as_its_type_does(declared: str, actual: str) -> None:
    assert is_what_it_says(TYPES[declared], HEADS[actual]) is (declared == actual)


@given(st.sampled_from(sorted(HEADS)), st.binary(max_size=64))
def test_nothing_else_begins_like_an_image_or_a_pdf(declared: str, head: bytes) -> None:
    assert not is_what_it_says(TYPES[declared], b"MZ" + head.replace(b"%PDF-", b""))


OFFICE = [name for name in TYPES if "officedocument" in name]
TEXTS = [name for name in TYPES if name not in {*HEADS, *OFFICE}]
VIDEO = bytes.fromhex("474000100000b00d0001c10000")
"""How a `.ts` begins that is a video."""


@pytest.mark.parametrize("name", OFFICE)
def test_an_office_document_begins_as_a_zip(name: str) -> None:
    assert is_what_it_says(TYPES[name], b"PK\3\4\x14\0\6\0")
    assert not is_what_it_says(TYPES[name], b"hello")
    assert not is_what_it_says(TYPES[name], bytes.fromhex("d0cf11e0a1b11ae1"))


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_characters_in_whatever_encoding(name: str) -> None:
    text = "Größe 數 😀\n" * 500
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert is_what_it_says(TYPES[name], text.encode(encoding))
    for without_mark in ("utf-16-be", "utf-16-le"):
        assert is_what_it_says(TYPES[name], "Plain.\n".encode(without_mark))
    assert is_what_it_says(TYPES[name], "Größe".encode("latin-1"))
    assert is_what_it_says(TYPES[name], b"")
    # One half of the characters has no zero, whichever it is: here the last one's other half is not there.
    for text_of_one_half in (b"a\0b\0c", b"\0a\0b\0"):
        assert is_what_it_says(TYPES[name], text_of_one_half)
    for binary in (VIDEO, b"MZ\x90\0\3\0\0\0\4", b"\x7fELF\2\1\1\0\0\0", HEADS["image/png"]):
        assert not is_what_it_says(TYPES[name], binary)
