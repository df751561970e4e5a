"""Files and vector stores at the scripted provider: made, counted, and reached through the real client."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from minichat.local.process import Child, free_port
from minichat.provider_entries import Provider, as_configured
from minichat.providers.files import Files
from tests.support.providers.calls import an_entry


@contextmanager
def a_scripted_provider(folder: Path) -> Iterator[str]:
    """The address of a scripted provider in a process of its own, for the time of a `with`."""
    port = free_port()
    command = [sys.executable, "-m", "minichat.local.scripted_provider", "--port", str(port)]
    child = Child("the scripted provider", command, folder)
    try:
        child.wait_until_it_answers(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


def a_file(url: str, marker: str = "") -> str:
    """The id of a new file at the provider; the marker says what happens to it."""
    return _made(f"{url}/control/files/file-{marker or 'x'}-{uuid4().hex}")


def a_vector_store(url: str, *files: str, marker: str = "") -> str:
    """The id of a new vector store at the provider, with these files in it."""
    return _made(f"{url}/control/vector_stores/vs_{marker or 'x'}-{uuid4().hex}", files)


def _made(url: str, files: tuple[str, ...] = ()) -> str:
    httpx2.put(url, json={"files": files}, trust_env=False).raise_for_status()
    return url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Told:
    """What the provider has, and every deletion that it was asked for, in order, with its answer."""

    files: list[str]
    vector_stores: dict[str, list[str]]
    deletions: list[tuple[str, int]]

    @classmethod
    def by(cls, url: str) -> "Told":
        """What the provider at this address tells."""
        told = httpx2.get(f"{url}/control/files", trust_env=False).json()
        deletions = [(deletion["path"], deletion["status"]) for deletion in told["deletions"]]
        return cls(told["files"], told["vector_stores"], deletions)


def exists(url: str, object_id: str) -> bool:
    """Whether the provider has this file or vector store."""
    told = Told.by(url)
    return object_id in told.files or object_id in told.vector_stores


def is_in(url: str, store: str, file: str) -> bool:
    """Whether the file is in the vector store."""
    return file in Told.by(url).vector_stores.get(store, ())


def deletions(url: str, *object_ids: str) -> list[tuple[str, int]]:
    """The deletions with one of these ids in their path."""
    return [(path, status) for path, status in Told.by(url).deletions if set(path.split("/")) & set(object_ids)]


@contextmanager
def files_of(**entries: Provider) -> Iterator[Files]:
    """The client of these providers for the time of a `with`."""
    files = Files(as_configured(entries))
    try:
        yield files
    finally:
        files.close()


@contextmanager
def files_at(url: str, **said: Any) -> Iterator[Files]:
    """The client of one provider, named `it`."""
    with files_of(it=an_entry(url, **said)) as files:
        yield files
