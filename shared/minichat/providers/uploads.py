"""What a provider is given of a chat: files and vector stores, as OpenAI has them and whoever follows it.

No call here can be repeated blindly: one whose answer is lost may have had its effect. What was made is found again by
its name, among what was made since.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import httpx2

from minichat.domain.cleanup import Failure
from minichat.domain.identity import TenantId
from minichat.providers.files import Files, refusal

PURPOSE = "assistants"
PAGE = 100
MAX_PAGES = 50
CLOCK_SECONDS = 300
"""How far the provider's clock may be behind ours."""

Indexing = Literal["absent", "in_progress", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant's account at a provider: its files, reached by this client."""

    files: Files
    tenant_id: TenantId
    provider_id: str


def upload(account: Account, name: str, content: bytes, content_type: str) -> str | Failure:
    """Uploads a file under that name, and returns the provider's id of it."""
    answer = _ask(account, "POST", "files", data={"purpose": PURPOSE}, files={"file": (name, content, content_type)})
    return answer if isinstance(answer, Failure) else _id(answer)


def find_files(account: Account, name: str, since: datetime) -> list[str] | Failure:
    """Ids of the files of that name that were uploaded since then, the oldest first."""
    return _find(account, "files", "filename", name, since)


def make_vector_store(account: Account, name: str) -> str | Failure:
    """Makes a vector store of that name, and returns the provider's id of it."""
    answer = _ask(account, "POST", "vector_stores", json={"name": name})
    return answer if isinstance(answer, Failure) else _id(answer)


def find_vector_stores(account: Account, name: str, since: datetime) -> list[str] | Failure:
    """Ids of the vector stores of that name that were made since then, the oldest first."""
    return _find(account, "vector_stores", "name", name, since)


def put_in(account: Account, store_id: str, file_id: str, attributes: Mapping[str, str]) -> Failure | None:
    """Has a file indexed in a vector store; `attributes` are what a search can ask for."""
    body = {"file_id": file_id, "attributes": dict(attributes)}
    answer = _ask(account, "POST", "vector_stores", store_id, "files", json=body)
    return answer if isinstance(answer, Failure) else None


def indexing(account: Account, store_id: str, file_id: str) -> Indexing | Failure:
    """How far the indexing of a file in a vector store is."""
    answer = account.files.ask(
        account.tenant_id, account.provider_id, "GET", "vector_stores", store_id, "files", file_id
    )
    if isinstance(answer, httpx2.Response) and answer.status_code == 404:
        return "absent"
    said = _json(answer)
    if isinstance(said, Failure):
        return said
    match said.get("status"):
        case "completed":
            return "completed"
        case "in_progress":
            return "in_progress"
        case "failed" | "cancelled":
            return "failed"
    return Failure("an answer without a status", may_pass=True)


def _find(account: Account, kind: str, label: str, name: str, since: datetime) -> list[str] | Failure:
    found: list[str] = []
    oldest = since.timestamp() - CLOCK_SECONDS
    for page in _pages(account, kind):
        if isinstance(page, Failure):
            return page
        for one in page:
            if one.get("created_at", oldest) < oldest:
                return found[::-1]
            if one.get(label) == name:
                found.append(str(one["id"]))
    return found[::-1]


def _pages(account: Account, kind: str) -> Iterator[list[dict[str, Any]] | Failure]:
    """Everything of a kind, the newest first, page by page."""
    after: dict[str, str] = {}
    for _ in range(MAX_PAGES):
        said = _ask(account, "GET", kind, query={"order": "desc", "limit": str(PAGE), **after})
        if isinstance(said, Failure):
            yield said
            return
        data = said.get("data")
        if not isinstance(data, list) or not all(isinstance(one, dict) and "id" in one for one in data):
            yield Failure("an answer without a list", may_pass=True)
            return
        yield data
        if not said.get("has_more") or not data:
            return
        after = {"after": str(data[-1]["id"])}
    yield Failure("too many to look through", may_pass=True)


def _ask(account: Account, method: str, *path: str, **content: Any) -> dict[str, Any] | Failure:
    return _json(account.files.ask(account.tenant_id, account.provider_id, method, *path, **content))


def _json(answer: httpx2.Response | Failure) -> dict[str, Any] | Failure:
    if isinstance(answer, Failure):
        return answer
    if not answer.is_success:
        return refusal(answer.status_code)
    try:
        said = answer.json()
    except (ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) else Failure("an answer that is no object", may_pass=True)


def _id(said: dict[str, Any]) -> str | Failure:
    made = said.get("id")
    return made if isinstance(made, str) and made.strip(".") else Failure("an answer without an id", may_pass=True)
