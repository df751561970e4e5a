"""Files and vector stores of the scripted provider: what exists, what was deleted, and failures on demand.

An id says what happens to it, by what it contains:

    fail-STATUS[xTIMES]    its deletion is answered with this status (only the first TIMES times)
    stuck-STATUS[xTIMES]   of a file: the same, when it is taken out of a vector store
    silent                 its deletion is never answered

What a file holds says what happens when it is given (POST), by markers anywhere in it:

    [[upload:STATUSxTIMES]]     its upload is answered with this status, the first TIMES times
    [[upload-lost:TIMES]]       it is uploaded, and answered with 500 all the same, the first TIMES times
    [[index:failed]]            its indexing fails          [[index-polls:N]]   it is indexed when asked for N times
    [[put-in:STATUSxTIMES]]     putting it into a vector store is answered with this status, the first TIMES times

`PUT /control/files/ID` makes a file, `PUT /control/vector_stores/ID` a store, of the files in its body's `files`;
`GET /control/files` lists what exists and every deletion that was requested, in order, with its answer.
"""

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SILENT_SECONDS = 120


@dataclass(slots=True)
class ScriptedFiles:
    """All files and vector stores of this process."""

    files: set[str] = field(default_factory=set)
    vector_stores: dict[str, set[str]] = field(default_factory=dict)
    deletions: list[tuple[str, int]] = field(default_factory=list)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    polls: Counter[str] = field(default_factory=Counter)
    stores_made: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def held_by(self, stores: list[str]) -> tuple[tuple[str, str], ...]:
        """Ids and names of the files in these vector stores, by id."""
        held = sorted({file for store in stores for file in self.vector_stores.get(store, ())} & self.files)
        return tuple((file, self.about.get(file, {}).get("filename", file)) for file in held)

    def remove(self, path: dict[str, str]) -> bool:
        """Removes what the path names; whether it existed."""
        store, file = path.get("store"), path.get("file", "")
        if store is None:
            return _removed(self.files, file)
        if file:
            return _removed(self.vector_stores.get(store, set()), file)
        return self.vector_stores.pop(store, None) is not None

    def incident(self, path: dict[str, str]) -> int | None:
        """The status that the marker in an id demands this time, or None."""
        taken_out = "store" in path and "file" in path
        marked = path["file"] if "file" in path else path["store"]
        found = re.search(rf"{'stuck' if taken_out else 'fail'}-(\d{{3}})(?:x(\d+))?", marked)
        if found is None:
            return None
        key = json.dumps(path)
        self.failures[key] += 1
        return int(found[1]) if found[2] is None or self.failures[key] <= int(found[2]) else None

    def refusal(self, marker: str, name: str, content: bytes) -> int | None:
        """The status that a marker in a file demands this time, or None."""
        found = re.search(rb"\[\[" + marker.encode() + rb":(?:(\d{3})x)?(\d+)\]\]", content)
        if found is None:
            return None
        key = f"{marker} {name}"
        self.failures[key] += 1
        return int(found[1] or 0) if self.failures[key] <= int(found[2]) else None

    def indexed(self, store_id: str, file_id: str) -> dict[str, Any]:
        """A file in a vector store, as far as it is indexed."""
        content = self.contents.get(file_id, b"")
        polls = re.search(rb"\[\[index-polls:(\d+)\]\]", content)
        status = "in_progress" if polls is not None and self.polls[file_id] < int(polls[1]) else "completed"
        if b"[[index:failed]]" in content:
            status = "failed"
        about = {"id": file_id, "object": "vector_store.file", "created_at": int(time.time()), "status": status}
        return about | {"vector_store_id": store_id, "usage_bytes": len(content), "last_error": None}


def routes() -> list[Route]:
    """The routes of files and vector stores; their state is the app's `state.files`."""
    return [
        Route("/v1/files/{file}", _delete, methods=["DELETE"]),
        Route("/v1/files", _upload, methods=["POST"]),
        Route("/v1/files", _list_files, methods=["GET"]),
        Route("/v1/vector_stores", _make_store, methods=["POST"]),
        Route("/v1/vector_stores", _list_stores, methods=["GET"]),
        Route("/v1/vector_stores/{store}/files", _put_in, methods=["POST"]),
        Route("/v1/vector_stores/{store}/files/{file}", _indexing, methods=["GET"]),
        Route("/v1/vector_stores/{store}", _delete, methods=["DELETE"]),
        Route("/v1/vector_stores/{store}/files/{file}", _delete, methods=["DELETE"]),
        Route("/control/files", _told),
        Route("/control/files/{file}", _put_file, methods=["PUT"]),
        Route("/control/vector_stores/{store}", _put_store, methods=["PUT"]),
    ]


async def _delete(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    path = dict(request.path_params)
    object_id = path.get("file") or path["store"]
    if "silent" in object_id:
        await asyncio.sleep(SILENT_SECONDS)
    status = have.incident(path)
    there = status is None and have.remove(path)
    status = status or (200 if there else 404)
    have.deletions.append((request.url.path.removeprefix("/v1/"), status))
    if there:
        return JSONResponse({"id": object_id, "object": _object(path), "deleted": True})
    problem = {"code": "scripted", "message": f"As told: {object_id}, see https://example.com", "type": "error"}
    return JSONResponse({"error": problem}, status)


def _object(path: dict[str, str]) -> str:
    if "store" not in path:
        return "file"
    return "vector_store.file.deleted" if "file" in path else "vector_store.deleted"


def _removed(names: set[str], name: str) -> bool:
    there = name in names
    names.discard(name)
    return there


async def _upload(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    async with request.form() as form:
        given = form["file"]
        assert isinstance(given, UploadFile)
        name, content, purpose = given.filename or "", await given.read(), form["purpose"]
    if (status := have.refusal("upload", name, content)) is not None:
        return _refused(status)
    file_id = f"file-{uuid4().hex}"
    have.files.add(file_id)
    have.contents[file_id] = content
    about = {"id": file_id, "object": "file", "bytes": len(content), "created_at": int(time.time())}
    have.about[file_id] = about | {"filename": name, "purpose": purpose, "status": "processed"}
    if have.refusal("upload-lost", name, content) is not None:
        raise ConnectionAbortedError("as told")
    return JSONResponse(have.about[file_id])


async def _make_store(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    said = json.loads(await request.body() or b"{}")
    store_id = f"vs_{uuid4().hex}"
    have.vector_stores[store_id] = set()
    have.stores_made += 1
    at = int(time.time())
    counts = dict.fromkeys(("in_progress", "completed", "failed", "cancelled", "total"), 0)
    about = {"id": store_id, "object": "vector_store", "created_at": at, "last_active_at": at, "file_counts": counts}
    have.about[store_id] = about | {"name": said.get("name"), "status": "completed", "usage_bytes": 0, "metadata": {}}
    return JSONResponse(have.about[store_id])


async def _put_in(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    store_id, said = request.path_params["store"], await request.json()
    file_id = said["file_id"]
    if store_id not in have.vector_stores or file_id not in have.files:
        return _refused(404)
    if (status := have.refusal("put-in", file_id, have.contents.get(file_id, b""))) is not None:
        return _refused(status)
    have.vector_stores[store_id].add(file_id)
    return JSONResponse(have.indexed(store_id, file_id))


async def _indexing(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    store_id, file_id = request.path_params["store"], request.path_params["file"]
    if file_id not in have.vector_stores.get(store_id, set()):
        return _refused(404)
    have.polls[file_id] += 1
    return JSONResponse(have.indexed(store_id, file_id))


async def _list_files(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    return _page(request, [have.about[one] for one in have.about if one in have.files])


async def _list_stores(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    return _page(request, [have.about[one] for one in have.about if one in have.vector_stores])


def _page(request: Request, oldest_first: list[dict[str, Any]]) -> Response:
    """A page in OpenAI's format."""
    every = oldest_first[::-1] if request.query_params.get("order", "desc") == "desc" else oldest_first
    ids = [one["id"] for one in every]
    after = request.query_params.get("after")
    start = ids.index(after) + 1 if after in ids else 0
    page = every[start : start + int(request.query_params.get("limit", "20"))]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return JSONResponse({"object": "list", "data": page, "has_more": start + len(page) < len(every), **ends})


def _refused(status: int) -> Response:
    problem = {"code": "scripted", "message": "As told, see https://example.com", "type": "error"}
    return JSONResponse({"error": problem}, status)


async def _told(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    stores = {store: sorted(files) for store, files in have.vector_stores.items()}
    deletions = [{"path": path, "status": status} for path, status in have.deletions]
    made = {"stores_made": have.stores_made, "about": have.about}
    return JSONResponse({"files": sorted(have.files), "vector_stores": stores, "deletions": deletions, **made})


async def _put_file(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    have.files.add(request.path_params["file"])
    return JSONResponse({"id": request.path_params["file"]})


async def _put_store(request: Request) -> Response:
    have: ScriptedFiles = request.app.state.files
    body = await request.body()
    have.vector_stores[request.path_params["store"]] = set(json.loads(body)["files"] if body else ())
    return JSONResponse({"id": request.path_params["store"]})
