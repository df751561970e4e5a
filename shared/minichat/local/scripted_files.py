"""Files and vector stores of the scripted provider: what is there, what was deleted, and what goes wrong on demand.

An id says what happens to it, by what it contains:

    fail-STATUS[xTIMES]    its deletion is answered with this status (only the first TIMES times)
    stuck-STATUS[xTIMES]   of a file: the same, when it is taken out of a vector store
    silent                 its deletion is never answered

`PUT /control/files/ID` makes a file, `PUT /control/vector_stores/ID` a store, of the files in its body's `files`;
`GET /control/files` tells what exists and every deletion that was asked for, in order, with its answer.
"""

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SILENT_SECONDS = 120


@dataclass(slots=True)
class Files:
    """What this process has."""

    files: set[str] = field(default_factory=set)
    vector_stores: dict[str, set[str]] = field(default_factory=dict)
    deletions: list[tuple[str, int]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def remove(self, path: dict[str, str]) -> bool:
        """Whether what this path names was there; it is not any more."""
        store, file = path.get("store"), path.get("file", "")
        if store is None:
            return _removed(self.files, file)
        if file:
            return _removed(self.vector_stores.get(store, set()), file)
        return self.vector_stores.pop(store, None) is not None

    def incident(self, path: dict[str, str]) -> int | None:
        """The status that the marker in an id demands now; None without one."""
        taken_out = "store" in path and "file" in path
        marked = path["file"] if "file" in path else path["store"]
        found = re.search(rf"{'stuck' if taken_out else 'fail'}-(\d{{3}})(?:x(\d+))?", marked)
        if found is None:
            return None
        key = json.dumps(path)
        self.failures[key] += 1
        return int(found[1]) if found[2] is None or self.failures[key] <= int(found[2]) else None


def routes() -> list[Route]:
    """The routes of files and vector stores; their state is the app's `state.files`."""
    return [
        Route("/v1/files/{file}", _delete, methods=["DELETE"]),
        Route("/v1/vector_stores/{store}", _delete, methods=["DELETE"]),
        Route("/v1/vector_stores/{store}/files/{file}", _delete, methods=["DELETE"]),
        Route("/control/files", _told),
        Route("/control/files/{file}", _put_file, methods=["PUT"]),
        Route("/control/vector_stores/{store}", _put_store, methods=["PUT"]),
    ]


async def _delete(request: Request) -> Response:
    have: Files = request.app.state.files
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


async def _told(request: Request) -> Response:
    have: Files = request.app.state.files
    stores = {store: sorted(files) for store, files in have.vector_stores.items()}
    deletions = [{"path": path, "status": status} for path, status in have.deletions]
    return JSONResponse({"files": sorted(have.files), "vector_stores": stores, "deletions": deletions})


async def _put_file(request: Request) -> Response:
    have: Files = request.app.state.files
    have.files.add(request.path_params["file"])
    return JSONResponse({"id": request.path_params["file"]})


async def _put_store(request: Request) -> Response:
    have: Files = request.app.state.files
    body = await request.body()
    have.vector_stores[request.path_params["store"]] = set(json.loads(body)["files"] if body else ())
    return JSONResponse({"id": request.path_params["store"]})
