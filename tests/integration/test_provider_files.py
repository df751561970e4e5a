"""Deletion at a provider: what counts as gone, what may pass, and that nothing secret is told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest

from minichat.domain.cleanup import Failure
from minichat.domain.identity import TenantId
from minichat.provider_entries import ProviderAuth, Secret, Timeouts
from minichat.providers.files import Account, Files
from tests.support.providers.calls import TENANT, an_entry
from tests.support.providers.files import (
    a_file,
    a_scripted_provider,
    a_vector_store,
    deletions,
    exists,
    files_at,
    files_of,
    is_in,
)
from tests.support.providers.kinds import KINDS, Kind

IMPATIENT = Timeouts(connect_seconds=0.3, idle_seconds=0.3)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with a_scripted_provider(tmp_path_factory.mktemp("provider")) as address:
        yield address


@pytest.fixture
def files(url: str) -> Iterator[Files]:
    with files_at(url, timeouts=IMPATIENT) as client:
        yield client


def an_auth(variable: str) -> ProviderAuth:
    return ProviderAuth(header="api-key", prefix="", secret=Secret(name=variable))


def test_each_deletion_takes_away_what_it_names_and_nothing_else(url: str, files: Files) -> None:
    file, other = a_file(url), a_file(url)
    store, another = a_vector_store(url, file, other), a_vector_store(url, file)
    assert Account(files, TENANT, "it").take_out(store, file) is None
    assert (is_in(url, store, file), is_in(url, store, other), is_in(url, another, file)) == (False, True, True)
    assert exists(url, file)
    assert Account(files, TENANT, "it").delete_file(file) is None
    assert (exists(url, file), exists(url, other)) == (False, True)
    assert Account(files, TENANT, "it").delete_vector_store(store) is None
    assert (exists(url, store), exists(url, another), exists(url, other)) == (False, True, True)


def test_what_is_not_there_is_gone(url: str, files: Files) -> None:
    assert Account(files, TENANT, "it").delete_file("file-never") is None
    assert Account(files, TENANT, "it").take_out("vs_never", "file-never") is None
    assert Account(files, TENANT, "it").delete_vector_store("vs_never") is None
    assert {status for _, status in deletions(url, "file-never", "vs_never")} == {404}


@pytest.mark.parametrize(
    ("status", "may_pass"),
    [
        *[(status, True) for status in (401, 408, 409, 429, 500, 502, 503, 504)],
        *[(status, False) for status in (307, 400, 403, 405, 422)],
    ],
)
def test_a_status_says_whether_waiting_helps(url: str, files: Files, status: int, may_pass: bool) -> None:
    file, store = a_file(url, f"fail-{status}"), a_vector_store(url, marker=f"fail-{status}")
    stuck = a_file(url, f"stuck-{status}")
    expected = Failure(f"status {status}", may_pass)
    assert Account(files, TENANT, "it").delete_file(file) == expected
    assert Account(files, TENANT, "it").delete_vector_store(store) == expected
    assert Account(files, TENANT, "it").take_out(store, stuck) == expected
    assert len(deletions(url, file)) == 1


def test_a_good_status_alone_deletes_nothing(url: str, files: Files) -> None:
    failure = Account(files, TENANT, "it").delete_file(a_file(url, "fail-200"))
    assert failure == Failure("an answer that does not say deleted", may_pass=True)


def test_silence_is_not_waited_for(url: str, files: Files) -> None:
    assert Account(files, TENANT, "it").delete_file(a_file(url, "silent")) == Failure(
        "no answer in time", may_pass=True
    )


def test_a_provider_that_is_not_there_may_come_back() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with files_at(nowhere) as files:
            assert Account(files, TENANT, "it").delete_file("file-1") == Failure("no connection", may_pass=True)
            assert Account(files, TENANT, "another").delete_file("file-1") == Failure(
                "the provider is not configured", may_pass=True
            )


@pytest.mark.parametrize("file_id", ["", ".", ".."])
def test_an_id_that_would_be_another_path_is_never_sent(url: str, files: Files, file_id: str) -> None:
    before = deletions(url, "files", "vector_stores")
    assert Account(files, TENANT, "it").delete_file(file_id) == Failure("an id that is none", may_pass=False)
    assert Account(files, TENANT, "it").take_out("vs_1", file_id) == Failure("an id that is none", may_pass=False)
    assert deletions(url, "files", "vector_stores") == before


def test_an_id_stays_one_part_of_the_path(url: str, files: Files) -> None:
    store = a_vector_store(url)
    assert Account(files, TENANT, "it").delete_file(f"../vector_stores/{store}") is None
    assert Account(files, TENANT, "it").delete_file(f"x?y#z/../../vector_stores/{store}") is None
    assert exists(url, store)


@contextmanager
def prepared(*answers: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers, one per connection, and what it was sent."""
    seen: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            connection, _ = listening.accept()
            with connection:
                seen.append(connection.recv(65_536).decode())
                connection.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", seen
    finally:
        server.join(10)
        listening.close()


def an_answer(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (an_answer(b'{"id": "file-1", "object": "file", "deleted": true}'), None),
        (an_answer(b"", "204 No Content"), None),
        (an_answer(b"<html>gone</html>", "404 Not Found"), None),
        (an_answer(b'{"deleted": false}'), Failure("an answer that does not say deleted", may_pass=True)),
        (an_answer(b'{"deleted": "true"}'), Failure("an answer that does not say deleted", may_pass=True)),
        (an_answer(b"[true]"), Failure("an answer that does not say deleted", may_pass=True)),
        (an_answer(b"<html>back soon</html>"), Failure("an answer that does not say deleted", may_pass=True)),
        (an_answer(b"\xff\xfe"), Failure("an answer that does not say deleted", may_pass=True)),
        (an_answer(b"", "202 Accepted"), Failure("an answer that does not say deleted", may_pass=True)),
        (an_answer(b"file-1 sk-secret", "400 Bad Request"), Failure("status 400", may_pass=False)),
        (b"not HTTP at all\r\n\r\n", Failure("no connection", may_pass=True)),
        (b"", Failure("no connection", may_pass=True)),
    ],
)
def test_an_answer_is_taken_at_its_word_and_never_repeated(answer: bytes, expected: Failure | None) -> None:
    with prepared(answer) as (address, _), files_at(address) as files:
        assert Account(files, TENANT, "it").delete_file("file-1") == expected


def test_a_key_is_sent_as_the_entry_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANUP_KEY", "sk-first\n")
    answer = an_answer(b"", "204 No Content")
    with prepared(answer, answer) as (address, seen):
        with files_at(address, auth=an_auth("CLEANUP_KEY")) as files:
            Account(files, TENANT, "it").take_out("vs_1", "file-1")
        with files_at(address) as files:
            Account(files, TENANT, "it").delete_file("a/b")
    assert seen[0].startswith("DELETE /v1/vector_stores/vs_1/files/file-1 HTTP/1.1\r\n")
    assert "\r\napi-key: sk-first\r\n" in seen[0]
    assert seen[1].startswith("DELETE /v1/files/a%2Fb HTTP/1.1\r\n")
    assert "sk-first" not in seen[1]


def test_a_key_that_no_header_can_carry_is_never_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANUP_KEY", "schlüssel")
    with files_at(url, auth=an_auth("CLEANUP_KEY")) as files:
        assert Account(files, TENANT, "it").delete_file(a_file(url)) == Failure("no request can be made", may_pass=True)


def test_a_key_that_was_rotated_is_read_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANUP_KEY", "old")
    with files_at(url, auth=an_auth("CLEANUP_KEY")) as files:
        assert Account(files, TENANT, "it").delete_file(a_file(url)) is None
        monkeypatch.setenv("CLEANUP_KEY", "")
        assert Account(files, TENANT, "it").delete_file(a_file(url)) is None
        assert Account(files, TENANT, "it").delete_file(a_file(url, "fail-401")) == Failure("status 401", may_pass=True)
        assert Account(files, TENANT, "it").delete_file(a_file(url)) == Failure(
            "no key, or it cannot be read", may_pass=True
        )


def test_files_are_beside_the_responses(url: str) -> None:
    file = a_file(url)
    entries = {"elsewhere": an_entry(url, api_path="/openai/v1/responses"), "here": an_entry(f"{url}/")}
    with files_of(**entries) as files:
        assert Account(files, TENANT, "elsewhere").delete_file(file) is None
        assert exists(url, file)
        assert Account(files, TENANT, "here").delete_file(file) is None
        assert not exists(url, file)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "responses" not in kind.name], ids=lambda kind: kind.name)
def test_what_answers_404_to_everything_is_no_proof_that_a_file_is_gone(url: str, kind: Kind) -> None:
    with files_of(it=kind.entry(url)) as files:
        failure = Account(files, TENANT, "it").delete_file(a_file(url))
    assert failure == Failure("a provider of this kind keeps no files", may_pass=True)


def test_azures_files_are_asked_for_in_its_version_of_the_api() -> None:
    answer = an_answer(b"", "204 No Content")
    azure = {"kind": "azure_openai_responses", "api_version": "preview"}
    with prepared(answer) as (address, seen), files_at(address, **azure) as files:
        assert Account(files, TENANT, "it").delete_file("file-1") is None
    assert seen[0].startswith("DELETE /openai/v1/files/file-1?api-version=preview HTTP/1.1\r\n")


def test_a_tenants_files_are_where_its_provider_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "their-key")
    file = a_file(url)
    with prepared(an_answer(b"", "204 No Content")) as (address, seen):
        theirs = {"base_url": address, "auth": {"secret": {"name": "THEIR_KEY"}}}
        with files_at(url, tenant_overrides={"globex": theirs}) as files:
            assert Account(files, TenantId("globex"), "it").delete_file(file) is None
            assert exists(url, file)
            assert Account(files, TENANT, "it").delete_file(file) is None
    assert "\r\nAuthorization: Bearer their-key\r\n" in seen[0]
    assert not exists(url, file)


def test_the_official_client_deletes_too(url: str) -> None:
    file = a_file(url)
    store = a_vector_store(url, file)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as official:
        taken = official.vector_stores.files.delete(file, vector_store_id=store)
        assert (taken.deleted, taken.object, is_in(url, store, file)) == (True, "vector_store.file.deleted", False)
        deleted = official.vector_stores.delete(store)
        assert (deleted.deleted, deleted.object, exists(url, store)) == (True, "vector_store.deleted", False)
        gone = official.files.delete(file)
        assert (gone.deleted, gone.object, exists(url, file)) == (True, "file", False)
        with pytest.raises(openai.NotFoundError):
            official.files.delete(file)
