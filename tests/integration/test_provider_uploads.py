"""Giving files to a provider: as the official client does it, and what was made is found again by its name."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import openai
import pytest

from minichat.domain.cleanup import Failure
from minichat.domain.identity import TenantId
from minichat.providers.files import PAGE, Account
from tests.support.providers.files import a_scripted_provider, files_at

LONG_AGO = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with a_scripted_provider(tmp_path_factory.mktemp("provider")) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as official:
        yield official


@pytest.fixture
def account(url: str) -> Iterator[Account]:
    with files_at(url) as client:
        yield Account(client, TenantId("t"), "it")


def a_name() -> str:
    return f"{uuid4().hex}.txt"


def made(answer: str | Failure) -> str:
    assert isinstance(answer, str), answer
    return answer


def test_the_official_client_sees_what_we_made(client: openai.OpenAI, account: Account) -> None:
    name = a_name()
    file_id = made(account.upload(name, b"hello", "text/plain"))
    store_id = made(account.make_vector_store(name))
    assert account.put_in(store_id, file_id, {"attachment_id": "a"}) is None
    file = next(one for one in client.files.list() if one.id == file_id)
    assert (file.filename, file.bytes, file.purpose) == (name, 5, "assistants")
    assert next(one for one in client.vector_stores.list() if one.id == store_id).name == name
    assert client.vector_stores.files.retrieve(file_id, vector_store_id=store_id).status == "completed"
    assert account.indexing(store_id, file_id) == "completed"


def test_we_see_what_the_official_client_made(client: openai.OpenAI, account: Account) -> None:
    name = a_name()
    file = client.files.create(file=(name, b"hello"), purpose="assistants")
    store = client.vector_stores.create(name=name)
    client.vector_stores.files.create(file_id=file.id, vector_store_id=store.id)
    assert account.find_files(name, LONG_AGO) == [file.id]
    assert account.find_vector_stores(name, LONG_AGO) == [store.id]
    assert account.indexing(store.id, file.id) == "completed"


def test_what_was_made_is_found_behind_a_page_of_others_the_oldest_first(account: Account) -> None:
    name = a_name()
    two = [made(account.upload(name, b"x", "text/plain")) for _ in range(2)]
    for _ in range(PAGE + 1):
        account.upload(a_name(), b"x", "text/plain")
    assert account.find_files(name, LONG_AGO) == two
    assert account.find_files(a_name(), LONG_AGO) == []


def test_nobody_looks_further_back_than_it_can_be(account: Account) -> None:
    name = a_name()
    made(account.upload(name, b"x", "text/plain"))
    assert account.find_files(name, datetime.now(UTC) + timedelta(hours=1)) == []


def test_a_file_that_is_in_no_store_is_absent(account: Account) -> None:
    store_id = made(account.make_vector_store(a_name()))
    assert account.indexing(store_id, "file-never") == "absent"
    assert account.put_in(store_id, "file-never", {}) == Failure("status 404", may_pass=False)


def test_a_provider_that_is_not_there_may_come_back() -> None:
    with files_at("http://127.0.0.1:9") as client:
        account = Account(client, TenantId("t"), "it")
        for answer in (
            account.upload(a_name(), b"x", "text/plain"),
            account.find_files(a_name(), LONG_AGO),
            account.make_vector_store(a_name()),
            account.indexing("vs_1", "file-1"),
        ):
            assert answer == Failure("no connection", may_pass=True)
