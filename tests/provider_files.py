"""Files and vector stores at the scripted provider: made, counted, and reached through the real client."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx2

from minichat import settings
from minichat.providers.files import Files
from tests.provider_calls import an_entry


def a_file(url: str, marker: str = "") -> str:
    """The id of a new file at the provider; the marker says what happens to it."""
    return _made(f"{url}/control/files/file-{marker or 'x'}-{uuid4().hex}")


def a_vector_store(url: str, *files: str, marker: str = "") -> str:
    """The id of a new vector store at the provider, with these files in it."""
    return _made(f"{url}/control/vector_stores/vs_{marker or 'x'}-{uuid4().hex}", files)


def _made(url: str, files: tuple[str, ...] = ()) -> str:
    httpx2.put(url, json={"files": files}, trust_env=False).raise_for_status()
    return url.rpartition("/")[2]


def exists(url: str, object_id: str) -> bool:
    """Whether the provider has this file or vector store."""
    told = _told(url)
    return object_id in told["files"] or object_id in told["vector_stores"]


def is_in(url: str, store: str, file: str) -> bool:
    """Whether the file is in the vector store."""
    return file in _told(url)["vector_stores"].get(store, ())


def deletions(url: str, *object_ids: str) -> list[tuple[str, int]]:
    """Every deletion that the provider was asked for with one of these ids in its path, in order, and its answer."""
    asked = [(told["path"], told["status"]) for told in _told(url)["deletions"]]
    return [(path, status) for path, status in asked if set(path.split("/")) & set(object_ids)]


def _told(url: str) -> dict[str, list[dict[str, str]]]:
    return dict(httpx2.get(f"{url}/control/files", trust_env=False).json())


@contextmanager
def files_of(**entries: settings.Provider) -> Iterator[Files]:
    """The client of these providers for the time of a `with`."""
    files = Files(entries)
    try:
        yield files
    finally:
        files.close()


@contextmanager
def files_at(url: str, **said: object) -> Iterator[Files]:
    """The client of one provider, named `it`."""
    with files_of(it=an_entry(url, **said)) as files:
        yield files
