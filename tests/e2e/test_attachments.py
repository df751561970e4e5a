"""Files over HTTP against the running stack: both ways in, out again, and everything that must not get in."""

import json
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import running_stack
from tests.support.http.client import Stack, User
from tests.support.http.given_files import (
    ENDS_SECONDS,
    MB,
    PDF,
    a_picture,
    announced,
    ended,
    got,
    posted,
    refused,
    unsummarized,
    uploaded,
)

CASES = Path(__file__).parents[1] / "cases"
VIDEO = bytes.fromhex("474000100000b00d0001c10000")


def a_bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A picture whose header promises 900 megapixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(20 * MB), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def at_provider(stack: Stack, chat_id: str) -> list[str]:
    """Names of the files that the provider has of a chat."""
    told = httpx2.get(f"{stack.about['provider_url']}/control/files", trust_env=False).json()
    names = [told["about"].get(file, {}).get("filename", "") for file in told["files"]]
    return [name for name in names if chat_id in name]


@pytest.mark.holds("contract.attachment-deleted")
def test_a_pdf_in_the_request_becomes_ready_and_is_deleted_at_the_provider(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    answer = uploaded(user, chat_id)
    assert answer.status_code == 201
    made = answer.json()
    assert made.keys() == {"id", "filename", "content_type", "size_bytes", "status", "kind", "created_at"}
    assert (made["filename"], made["size_bytes"], made["kind"]) == ("moon.pdf", len(PDF), "document")
    now = ended(user, chat_id, made)
    assert now == {**now, **made, "status": "ready"}
    assert at_provider(stack, chat_id) == [f"{chat_id}_{made['id']}.pdf"]
    _deleted(stack, user, chat_id, made["id"])


@pytest.mark.holds("contract.wait")
def test_a_file_that_is_waited_for_can_be_named_at_once(user: User) -> None:
    chat_id = user.new_chat()
    answer = uploaded(user, chat_id, prefer="respond-async, wait=15")
    assert (answer.status_code, answer.json()["status"]) == (201, "ready")
    assert answer.headers["preference-applied"] == "wait=15"
    said = user.send(chat_id, "[[say:Far.]] How far is the moon?", attachment_ids=[answer.json()["id"]])
    assert said.names[-2:] == ["citations", "done"]


@pytest.mark.holds("contract.wait")
def test_a_wait_is_bounded_and_answers_with_how_the_file_stands(user: User) -> None:
    chat_id = user.new_chat()
    slow = uploaded(user, chat_id, PDF + b"[[index-polls:99999]]", prefer="wait=1")
    assert (slow.status_code, slow.headers["preference-applied"]) == (201, "wait=1")
    path = f"/chats/{chat_id}/attachments/{slow.json()['id']}"
    began = time.monotonic()
    again = user.http.get(path, headers={"prefer": 'wait="1"'})
    assert time.monotonic() - began >= 1
    assert (again.json()["status"] in {"pending", "uploaded"}, again.headers["preference-applied"]) == (True, "wait=1")
    for unheard in ("wait", "wait=soon", "wait=-1", 'x="a, wait=9"', "await=9", "WAIT=0"):
        answer = user.http.get(path, headers={"prefer": unheard})
        assert answer.json()["status"] in {"pending", "uploaded"}
        assert answer.headers.get("preference-applied") == ("wait=0" if unheard == "WAIT=0" else None)
    user.http.delete(f"/chats/{chat_id}").raise_for_status()


@pytest.mark.holds("contract.wait-15")
def test_who_wants_to_wait_for_ever_waits_for_fifteen_seconds_at_most(user: User) -> None:
    chat_id = user.new_chat()
    made = ended(user, chat_id, uploaded(user, chat_id).json())
    told = user.http.get(f"/chats/{chat_id}/attachments/{made['id']}", headers={"prefer": "wait=99999"})
    # The document's summary may come at any time.
    assert told.json() == {**told.json(), **made}
    assert told.headers["preference-applied"] == "wait=15"


def test_a_pdf_posted_with_a_form_becomes_ready_and_is_deleted_at_the_provider(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    answer = announced(user, chat_id)
    assert answer.status_code == 201
    made = answer.json()
    form = made.pop("upload")
    assert made["status"] == "pending"
    assert posted(form, PDF) == 204
    assert ended(user, chat_id, made) == made | {"status": "ready"}
    _deleted(stack, user, chat_id, made["id"])


def _deleted(stack: Stack, user: User, chat_id: str, attachment_id: str) -> None:
    path = f"/chats/{chat_id}/attachments/{attachment_id}"
    assert [user.http.delete(path).status_code for _ in range(2)] == [204, 204]
    refused(user.http.get(path), 404, "attachment_not_found")
    until = time.monotonic() + ENDS_SECONDS
    while at_provider(stack, chat_id):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.holds("contract.upload-form")
def test_a_large_file_goes_by_the_form(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    content = PDF + b"." * (20 * MB)
    made = announced(user, chat_id, size_bytes=len(content)).json()
    assert posted(made["upload"], content) == 204
    assert ended(user, chat_id, made)["status"] == "ready"


def test_files_of_different_chats_do_not_wait_for_each_other(stack: Stack, user: User) -> None:
    """One after the other they would: a file that is not indexed is waited for for more than a minute."""
    slow, quick = user.new_chat(), user.new_chat()
    stuck = uploaded(user, slow, PDF + b"[[index-polls:99999]]").json()
    assert ended(user, quick, uploaded(user, quick).json())["status"] == "ready"
    assert got(user, slow, stuck["id"])["status"] in {"pending", "uploaded"}
    user.http.delete(f"/chats/{slow}").raise_for_status()


def test_deleted_chats_whose_files_are_being_indexed_hold_up_no_other(stack: Stack, user: User) -> None:
    """More of them than are handled side by side."""
    doomed = [user.new_chat() for _ in range(8)]
    for chat_id in doomed:
        uploaded(user, chat_id, PDF + b"[[index-polls:99999]]")
    until = time.monotonic() + ENDS_SECONDS
    while not any(at_provider(stack, chat_id) for chat_id in doomed):
        assert time.monotonic() < until
        time.sleep(0.05)
    for chat_id in doomed:
        user.http.delete(f"/chats/{chat_id}").raise_for_status()
    chat_id = user.new_chat()
    assert ended(user, chat_id, uploaded(user, chat_id).json())["status"] == "ready"
    while any(at_provider(stack, chat_id) for chat_id in doomed):
        assert time.monotonic() < until + 60, "their cleanup comes again after some pauses"
        time.sleep(0.05)


def test_a_picture_shows_its_thumbnail(user: User) -> None:
    chat_id = user.new_chat()
    now = ended(user, chat_id, uploaded(user, chat_id, a_picture(), "sea.png", "image/png").json())
    assert (now["status"], now["kind"]) == ("ready", "image")
    thumbnail = now["img_thumbnail"]
    assert (thumbnail["content_type"], thumbnail["width"], thumbnail["height"]) == ("image/webp", 128, 85)


def test_nothing_of_the_providers_is_told(user: User) -> None:
    chat_id = user.new_chat()
    made = announced(user, chat_id).json()
    posted(made["upload"], PDF)
    told = json.dumps([made, ended(user, chat_id, made)])
    assert not any(word in told for word in ("file-", "vs_", "openai", "provider", "storage"))


def test_an_image_of_one_by_a_hundred_thousand_is_an_image(user: User) -> None:
    chat_id = user.new_chat()
    now = ended(user, chat_id, uploaded(user, chat_id, a_picture(1, 100_000), "thin.png", "image/png").json())
    assert (now["status"], now["img_thumbnail"]["width"], now["img_thumbnail"]["height"]) == ("ready", 1, 128)


@pytest.mark.parametrize("content", [a_bomb(), b"\x89PNG\r\n\x1a\n not a picture"], ids=["bomb", "garbage"])
def test_a_bomb_or_a_broken_picture_fails(stack: Stack, user: User, content: bytes) -> None:
    chat_id = user.new_chat()
    now = ended(user, chat_id, uploaded(user, chat_id, content, "sea.png", "image/png").json())
    assert (now["status"], now["error_code"]) == ("failed", "invalid_image")
    assert at_provider(stack, chat_id) == []


def test_a_wrong_type_behind_a_right_extension_is_refused(user: User) -> None:
    chat_id = user.new_chat()
    refused(uploaded(user, chat_id, b"MZ\x90\0\3"), 415, "unsupported_file_type")
    refused(uploaded(user, chat_id, b"MZ\x90\0\3", "a.pdf", "application/octet-stream"), 415, "unsupported_file_type")
    refused(uploaded(user, chat_id, PDF, "a.exe", "application/x-msdownload"), 415, "unsupported_file_type")
    refused(uploaded(user, chat_id, VIDEO, "a.ts", "video/mp2t"), 415, "unsupported_file_type")
    refused(uploaded(user, chat_id, b"hello", "a.docx", "application/zip"), 415, "unsupported_file_type")
    refused(uploaded(user, chat_id, a_picture(kind="GIF"), "a.png", "image/png"), 415, "unsupported_file_type")


@pytest.mark.parametrize(
    ("name", "declared", "expected"),
    [
        ("a.ts", "video/mp2t", "text/typescript"),
        ("a.rs", "application/rls-services+xml", "text/x-rust"),
        ("A.java", "text/x-java-source", "text/x-java"),
        ("a.md", "text/x-markdown", "text/markdown"),
    ],
)
def test_what_a_client_declares_of_a_file_is_a_hint(user: User, name: str, declared: str, expected: str) -> None:
    chat_id = user.new_chat()
    made = uploaded(user, chat_id, b"let x = 1\n", name, declared).json()
    assert (made["filename"], made["content_type"]) == (name, expected)
    made = announced(user, chat_id, filename=name, content_type=declared, size_bytes=10).json()
    assert made["content_type"] == expected


@pytest.mark.parametrize(
    ("case", "filename"), [("a-part-without-a-type.txt", "notes.txt"), ("a-name-of-its-own-charset.txt", "€ rates.txt")]
)
def test_a_part_as_widely_used_clients_send_it_is_taken(user: User, case: str, filename: str) -> None:
    chat_id = user.new_chat()
    body, form = (CASES / case).read_bytes(), {"content-type": "multipart/form-data; boundary=X"}
    answer = user.http.post(f"/chats/{chat_id}/attachments", content=body, headers=form)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["filename"], answer.json()["content_type"]) == (filename, "text/plain")
    assert ended(user, chat_id, answer.json())["status"] == "ready"


def test_a_file_may_be_announced_without_its_type(user: User) -> None:
    # A browser's File has an empty one when it does not know it.
    path = f"/chats/{user.new_chat()}/attachments/uploads"
    for body in ({"filename": "a.go", "size_bytes": 9}, {"filename": "a.go", "size_bytes": 9, "content_type": ""}):
        assert user.http.post(path, json=body).json()["content_type"] == "text/x-go"


def test_a_wrong_type_behind_a_form_fails(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    made = announced(user, chat_id, size_bytes=5).json()
    assert posted(made["upload"], b"MZ\x90\0\3") == 204
    now = ended(user, chat_id, made)
    assert (now["status"], now["error_code"]) == ("failed", "unsupported_file_type")
    assert at_provider(stack, chat_id) == []


def test_an_empty_file_is_refused(user: User) -> None:
    chat_id = user.new_chat()
    refused(uploaded(user, chat_id, b""), 400, "invalid_request", "file")
    refused(announced(user, chat_id, size_bytes=0), 400, "invalid_request", "size_bytes")


@pytest.mark.holds("contract.upload")
def test_what_is_too_large_is_refused_with_the_limit_or_the_other_way(user: User) -> None:
    chat_id = user.new_chat()
    assert (
        "/attachments/uploads" in refused(uploaded(user, chat_id, PDF + bytes(5 * MB)), 413, "file_too_large")["detail"]
    )
    assert str(25 * MB) in refused(announced(user, chat_id, size_bytes=10 * 1024 * MB), 413, "file_too_large")["detail"]
    image = {"filename": "a.png", "content_type": "image/png"}
    refused(announced(user, chat_id, size_bytes=5 * MB + 1, **image), 413, "file_too_large")
    refused(announced(user, chat_id, size_bytes="5"), 400, "invalid_request", "size_bytes")


@pytest.mark.parametrize("length", [10 * 1024 * MB, 7 * MB])
def test_a_length_that_is_only_declared_is_refused_at_once(stack: Stack, user: User, length: int) -> None:
    chat_id = user.new_chat()
    status, _ = _raw(stack, user, chat_id, b"--b\r\n", length)
    assert status == 413


def test_an_upload_that_stops_half_way_leaves_nothing(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.pdf"\r\n'
    _raw(stack, user, chat_id, head + b"content-type: application/pdf\r\n\r\n%PDF-1.7", 5000, hang_up=True)
    # A whole body that lacks its end.
    whole = head + b"content-type: application/pdf\r\n\r\n%PDF-1.7"
    status, problem = _raw(stack, user, chat_id, whole, len(whole))
    assert (status, problem["code"]) == (400, "invalid_request")
    assert at_provider(stack, chat_id) == []


def _raw(
    stack: Stack, user: User, chat_id: str, body: bytes, length: int, *, hang_up: bool = False
) -> tuple[int, dict[str, Any]]:
    """What the server answers to a body of which it has been told another length."""
    address = urlsplit(stack.base_url)
    head = (
        f"POST {address.path}/chats/{chat_id}/attachments HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"authorization: {user.http.headers['authorization']}\r\nconnection: close\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        if hang_up:
            return 0, {}
        answer = b""
        while data := connection.recv(65536):
            answer += data
    headers, _, content = answer.partition(b"\r\n\r\n")
    return int(headers.split()[1]), json.loads(content)


@pytest.mark.parametrize(
    ("content_type", "body", "field"),
    [
        ("multipart/form-data", b"--b--\r\n", "content-type"),
        ("multipart/form-data; boundary=", b"--b--\r\n", "content-type"),
        ("application/json", b"{}", "content-type"),
        ("multipart/form-data; boundary=b", b"", "multipart"),
        ("multipart/form-data; boundary=b", b"no boundary", "multipart"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", "file"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
            "file",
        ),
        ("multipart/form-data; boundary=" + "b" * 5000, b"--b--\r\n", "multipart"),
    ],
)
def test_a_body_that_is_no_form_with_a_file_is_refused(user: User, content_type: str, body: bytes, field: str) -> None:
    chat_id = user.new_chat()
    path = f"/chats/{chat_id}/attachments"
    answer = user.http.post(path, content=body, headers={"content-type": content_type})
    refused(answer, 400, "invalid_request", field)


def test_two_files_are_refused(user: User) -> None:
    chat_id = user.new_chat()
    two = [("file", (f"{number}.pdf", PDF, "application/pdf")) for number in range(2)]
    refused(user.http.post(f"/chats/{chat_id}/attachments", files=two), 400, "invalid_request", "file")


def test_other_parts_are_passed_over(user: User) -> None:
    chat_id = user.new_chat()
    answer = user.http.post(
        f"/chats/{chat_id}/attachments",
        data={"note": "first"},
        files={"file": ("data.csv", b"a,b\n1,2\n", "text/csv; charset=utf-8")},
    )
    assert answer.status_code == 201
    assert answer.json()["content_type"] == "text/plain"


@pytest.mark.holds("contract.attachment-list")
def test_the_attachments_of_a_chat_are_listed_without_those_that_were_deleted(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    made = [uploaded(user, chat_id).json(), uploaded(user, chat_id, a_picture(), "sea.png", "image/png").json()]
    gone = announced(user, chat_id).json()
    assert user.http.delete(f"/chats/{chat_id}/attachments/{gone['id']}").status_code == 204
    there = [ended(user, chat_id, one) for one in made]
    assert "img_thumbnail" in there[1]
    path = f"/chats/{chat_id}/attachments"
    first = user.http.get(path, params={"limit": 1})
    assert first.status_code == 200, first.text
    assert [unsummarized(one) for one in first.json()["items"]] == there[1:]
    cursor = first.json()["page_info"]["next_cursor"]
    second = user.http.get(path, params={"cursor": cursor}).json()
    assert [unsummarized(one) for one in second["items"]] == there[:1]
    assert second["page_info"]["next_cursor"] is None
    refused(user.http.get(path, params={"cursor": cursor[:-1]}), 400, "invalid_cursor")
    refused(user.http.get(path, params={"limit": 101}), 400, "invalid_request", "limit")
    assert set(user.http.put(path).headers["allow"].split(", ")) >= {"GET", "POST"}
    with stack.user() as stranger:
        refused(stranger.http.get(path), 404, "chat_not_found")


@pytest.mark.holds("contract.doc-summary")
def test_a_document_gets_a_summary_and_an_image_none(user: User) -> None:
    chat_id = user.new_chat()
    made = [uploaded(user, chat_id).json(), uploaded(user, chat_id, a_picture(), "sea.png", "image/png").json()]
    document, image = (ended(user, chat_id, one) for one in made)
    until = time.monotonic() + ENDS_SECONDS
    while "doc_summary" not in (shown := user.http.get(f"/chats/{chat_id}/attachments/{document['id']}").json()):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert shown["doc_summary"] == "A document called moon.pdf."
    assert shown["summary_updated_at"] > shown["created_at"]
    assert unsummarized(shown) == document
    assert user.http.get(f"/chats/{chat_id}/attachments").json()["items"] == [image, shown]
    assert user.send(chat_id, "[[say:fine]]").text == "fine"


@pytest.mark.parametrize("name", ["../../../etc/moon.pdf", "C:\\temp\\moon.pdf", "/moon.pdf"])
def test_a_path_is_no_file_name(user: User, name: str) -> None:
    chat_id = user.new_chat()
    assert announced(user, chat_id, filename=name).json()["filename"] == "moon.pdf"
    assert uploaded(user, chat_id, name=name).json()["filename"] == "moon.pdf"


def test_a_form_lets_in_exactly_what_it_was_made_for(user: User) -> None:
    chat_id = user.new_chat()
    made = announced(user, chat_id).json()
    form = made["upload"]
    assert posted(form, PDF, **{"Content-Type": "text/html"}) == 403
    assert posted(form, PDF, key=form["fields"]["key"].replace(chat_id, str(uuid4()))) == 403
    assert posted(form, PDF + b"more") == 400
    assert posted(form, PDF[:-1]) == 400
    assert got(user, chat_id, made["id"])["status"] == "pending"


def test_a_form_that_is_used_twice_changes_nothing(stack: Stack, user: User) -> None:
    chat_id = user.new_chat()
    made = announced(user, chat_id).json()
    assert posted(made["upload"], PDF) == 204
    ready = ended(user, chat_id, made)
    assert posted(made["upload"], PDF[:-1] + b"!") == 204
    following = uploaded(user, chat_id).json()
    assert ended(user, chat_id, following)["status"] == "ready"
    assert got(user, chat_id, made["id"]) == ready
    assert len(at_provider(stack, chat_id)) == 2


def test_ids_of_another_chat_or_another_user_lead_nowhere(stack: Stack, user: User) -> None:
    chat_id, other = user.new_chat(), user.new_chat()
    made = uploaded(user, chat_id).json()
    for method in ("GET", "DELETE"):
        path = f"/chats/{other}/attachments/{made['id']}"
        refused(user.http.request(method, path), 404, "attachment_not_found")
        refused(user.http.request(method, f"/chats/{chat_id}/attachments/{uuid4()}"), 404, "attachment_not_found")
        refused(user.http.request(method, f"/chats/{chat_id}/attachments/nope"), 400, "invalid_request")
        with stack.user() as stranger:
            refused(stranger.http.request(method, f"/chats/{chat_id}/attachments/{made['id']}"), 404, "chat_not_found")
    with stack.user() as stranger:
        refused(uploaded(stranger, chat_id), 404, "chat_not_found")
        refused(announced(stranger, chat_id), 404, "chat_not_found")
    assert ended(user, chat_id, made)["status"] == "ready"


def test_the_chat_comes_before_the_body(user: User) -> None:
    answer = user.http.post(f"/chats/{uuid4()}/attachments", json={})
    refused(answer, 404, "chat_not_found")


def test_the_51st_document_names_the_limit(user: User) -> None:
    chat_id = user.new_chat()
    for _ in range(50):
        assert announced(user, chat_id).status_code == 201
    problem = refused(announced(user, chat_id), 429, "quota_exceeded")
    assert problem["quota_scope"] == "uploads"
    assert "50" in problem["detail"]
    assert uploaded(user, chat_id, a_picture(), "sea.png", "image/png").status_code == 201


def test_a_form_that_nobody_uses_ends_its_attachment(tmp_path: Path) -> None:
    hurried = {"MINICHAT_ATTACHMENTS__UPLOAD_SECONDS": "1", "MINICHAT_ATTACHMENTS__ABANDONED_AFTER_SECONDS": "3"}
    with running_stack(tmp_path, environment=hurried) as stack, stack.user() as user:
        chat_id = user.new_chat()
        made = announced(user, chat_id).json()
        assert got(user, chat_id, made["id"])["status"] == "pending"
        now = ended(user, chat_id, made)
        assert (now["status"], now["error_code"]) == ("failed", "upload_abandoned")
        assert posted(made["upload"], PDF) == 403
