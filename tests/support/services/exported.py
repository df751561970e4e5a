"""Somebody's export, taken on by workers, and what its files say."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.request import urlopen

from botocore.client import BaseClient

from minichat.domain.export import DataExport
from minichat.services import exporting
from minichat.settings import Store, current
from minichat.storage import exports, keys
from tests.support.domain.builders import new_id
from tests.support.services.erased import SETTINGS, Person, bucket
from tests.support.services.walk import OPERATIONS
from tests.support.storage.faults import Killed

WRITES = {*OPERATIONS, "PutObject", "DeleteObject"}
"""Operations that change the table or the bucket."""
FILE_BYTES = 2_000
"""Of a file: an export of a few chats has several."""


def taken_on(person: Person, export_id: str, *, seconds: float = 600) -> exporting.ExportStage:
    """The export, taken as far as it goes in so much of the person's time, of which each look at the clock takes one
    second."""
    deps = exporting.ExportingDeps(SETTINGS, lambda: person.call().now, new_id, FILE_BYTES)
    ends_at = person.now + timedelta(seconds=seconds)
    return exporting.go_on(person.tenant, export_id, deps, ends_at=ends_at)


def seen(person: Person, export: DataExport) -> DataExport:
    """The export as it is now."""
    found = exports.read(person.tenant, export.export_id)
    assert found is not None
    return found


def said(person: Person, export: DataExport) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines of an export that is ready, and its manifest: fetched by their links, without credentials."""
    files = exporting.links(seen(person, export), person.now, SETTINGS)
    contents = {one.name: urlopen(one.url, timeout=30).read() for one in files}
    manifest = json.loads(contents.pop(exporting.MANIFEST))
    assert {one["name"]: one["size_bytes"] for one in manifest["files"]} == {
        name: len(content) for name, content in contents.items()
    }
    lines = [json.loads(line) for _, content in sorted(contents.items()) for line in content.splitlines()]
    return lines, manifest


def in_bucket(person: Person) -> list[str]:
    """The names of all files that exports of the tenant have."""
    found = bucket().list_objects_v2(Bucket=current().attachments.bucket, Prefix=keys.export_folder(person.tenant))
    return [one["Key"] for one in found.get("Contents", [])]


@contextmanager
def dying_after(writes: int) -> Iterator[None]:
    """The process dies before its next write to table or bucket, once it has made so many."""
    clients: Any = BaseClient
    call, left = clients._make_api_call, [writes]

    def die(client: Any, operation: str, *more: Any) -> Any:
        if operation in WRITES:
            if not left[0]:
                raise Killed
            left[0] -= 1
        return call(client, operation, *more)

    clients._make_api_call = die
    try:
        yield
    finally:
        clients._make_api_call = call


def told_export(person: Person, export: DataExport, store: Store) -> str:
    """What a process of its own needs to go on with an export (`exporting_process`)."""
    about = {"tenant": person.tenant, "name": person.name, "now": person.now.isoformat()}
    return json.dumps({**about, "export": export.export_id, "store": store.model_dump()})
