"""What a provider keeps of a chat: files and vector stores, with the API of OpenAI and its followers.

Nothing is retried here: the callers' queues deliver again. A failure names its kind and nothing else, because it is
stored and logged: no address, no key, no provider id, and nothing of the provider's answer.
"""

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, urlencode

import httpx2

from minichat.domain.cleanup import Failure
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import TenantId
from minichat.provider_entries import EntriesOf, Provider
from minichat.providers import credentials, egress
from minichat.providers.transport import AddressRefused

MAX_CONNECTIONS = 32
PURPOSE = "assistants"
PAGE = 100
MAX_PAGES = 50
CLOCK_SECONDS = 300
"""How far the provider's clock may be behind ours."""

Indexing = Literal["absent", "in_progress", "completed", "failed"]

# A time-out, a conflict with another change of the same object, and a key under rotation all pass with time.
_PASSING_STATUSES = frozenset({401, 408, 409, 425, 429})


class Files:
    """The client of the files and vector stores of the providers in force; any number of threads may share one."""

    def __init__(self, entries_of: EntriesOf) -> None:
        self._entries_of = entries_of
        self._clients: dict[bool, httpx2.Client] = {}
        self._making = threading.Lock()
        self._keys = credentials.ProviderKeys()

    def ask(
        self,
        tenant_id: TenantId,
        provider_id: str,
        method: str,
        *path: str,
        query: Mapping[str, str] | None = None,
        **content: Any,
    ) -> httpx2.Response | Failure:
        """Any answer of the tenant's provider to one request; `content` is as httpx2 takes it: json, data, files.

        `query` is the address's query string.
        """
        entry = self._entry(tenant_id, provider_id)
        if isinstance(entry, Failure):
            return entry
        if not all(part.strip(".") for part in path):
            return Failure("an id that is none", may_pass=False)
        headers, key = {}, None
        if entry.auth is not None:
            if (key := self._keys.get(entry.auth.secret)) is None:
                return Failure("no key, or it cannot be read", may_pass=True)
            headers[entry.auth.header] = entry.auth.prefix + key
        answer = self._answer(entry, method, _url(entry, path, query or {}), headers=headers, **content)
        if isinstance(answer, Failure):
            return answer
        if answer.status_code == 401 and entry.auth is not None and key is not None:
            self._keys.refused(entry.auth.secret, key)
        return answer

    def close(self) -> None:
        """Closes every connection."""
        for client in self._clients.values():
            client.close()

    def _entry(self, tenant_id: TenantId, provider_id: str) -> Provider | Failure:
        try:
            entry = self._entries_of(tenant_id).get(provider_id)
        except ServiceUnavailable:
            return Failure("the tenant's providers cannot be looked up", may_pass=True)
        if entry is None:
            # A deployment whose entry is missing, or not there yet, must not lose track of the provider's files.
            return Failure("the provider is not configured", may_pass=True)
        if not entry.keeps_files:
            # It did when the files were made; a 404 for every path must not count as proof that they are gone.
            return Failure("a provider of this kind keeps no files", may_pass=True)
        return entry

    def _client(self, entry: Provider) -> httpx2.Client:
        anywhere = entry.allow_insecure
        with self._making:
            if (client := self._clients.get(anywhere)) is None:
                limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
                client = self._clients[anywhere] = egress.client(limits, anywhere=anywhere)
        return client

    def _answer(self, entry: Provider, method: str, url: str, **content: Any) -> httpx2.Response | Failure:
        times, client = entry.timeouts, self._client(entry)
        timeout = httpx2.Timeout(times.idle_seconds, connect=times.connect_seconds, pool=times.connect_seconds)
        try:
            return client.request(method, url, timeout=timeout, **content)
        except httpx2.TimeoutException:
            return Failure("no answer in time", may_pass=True)
        except httpx2.HTTPError:
            return Failure("no connection", may_pass=True)
        except AddressRefused:
            return Failure("the address is not a public one", may_pass=True)
        except (httpx2.InvalidURL, ValueError):
            return Failure("no request can be made", may_pass=True)


class Account:
    """A tenant's account at a provider: its files and vector stores, reached through one client.

    Calls that make something cannot be repeated blindly: one whose answer is lost may have taken effect. Its result is
    found by name, among everything made since.
    """

    def __init__(self, files: Files, tenant_id: TenantId, provider_id: str) -> None:
        self._files, self._tenant_id, self._provider_id = files, tenant_id, provider_id

    def upload(self, name: str, content: bytes, content_type: str) -> str | Failure:
        """Uploads a file under that name; its id at the provider."""
        answer = self._ask("POST", "files", data={"purpose": PURPOSE}, files={"file": (name, content, content_type)})
        return answer if isinstance(answer, Failure) else _id(answer)

    def find_files(self, name: str, since: datetime) -> list[str] | Failure:
        """Ids of the files of that name that were uploaded since then, the oldest first."""
        return self._find("files", "filename", name, since)

    def make_vector_store(self, name: str) -> str | Failure:
        """Makes a vector store of that name; its id at the provider."""
        answer = self._ask("POST", "vector_stores", json={"name": name})
        return answer if isinstance(answer, Failure) else _id(answer)

    def find_vector_stores(self, name: str, since: datetime) -> list[str] | Failure:
        """Ids of the vector stores of that name that were made since then, the oldest first."""
        return self._find("vector_stores", "name", name, since)

    def put_in(self, store_id: str, file_id: str, attributes: Mapping[str, str]) -> Failure | None:
        """Has a file indexed in a vector store; searches can filter by `attributes`."""
        body = {"file_id": file_id, "attributes": dict(attributes)}
        answer = self._ask("POST", "vector_stores", store_id, "files", json=body)
        return answer if isinstance(answer, Failure) else None

    def indexing(self, store_id: str, file_id: str) -> Indexing | Failure:
        """The progress of a file's indexing in a vector store."""
        answer = self._files.ask(self._tenant_id, self._provider_id, "GET", "vector_stores", store_id, "files", file_id)
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

    def delete_file(self, file_id: str) -> Failure | None:
        """Deletes a file; None when it is gone, even if it was gone before; else why it may still exist."""
        return self._delete("files", file_id)

    def take_out(self, vector_store_id: str, file_id: str) -> Failure | None:
        """Takes a file out of a vector store, as `delete_file`; the file itself stays."""
        return self._delete("vector_stores", vector_store_id, "files", file_id)

    def delete_vector_store(self, vector_store_id: str) -> Failure | None:
        """Deletes a vector store, as `delete_file`; its files stay."""
        return self._delete("vector_stores", vector_store_id)

    def _find(self, kind: str, label: str, name: str, since: datetime) -> list[str] | Failure:
        found: list[str] = []
        oldest = since.timestamp() - CLOCK_SECONDS
        for page in self._pages(kind):
            if isinstance(page, Failure):
                return page
            for one in page:
                if one.get("created_at", oldest) < oldest:
                    return found[::-1]
                if one.get(label) == name:
                    found.append(str(one["id"]))
        return found[::-1]

    def _pages(self, kind: str) -> Iterator[list[dict[str, Any]] | Failure]:
        """Everything of a kind, the newest first, page by page."""
        after: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            said = self._ask("GET", kind, query={"order": "desc", "limit": str(PAGE), **after})
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

    def _ask(self, method: str, *path: str, **content: Any) -> dict[str, Any] | Failure:
        return _json(self._files.ask(self._tenant_id, self._provider_id, method, *path, **content))

    def _delete(self, *path: str) -> Failure | None:
        answer = self._files.ask(self._tenant_id, self._provider_id, "DELETE", *path)
        return answer if isinstance(answer, Failure) else _failure(answer)


def _url(entry: Provider, path: tuple[str, ...], query: Mapping[str, str]) -> str:
    """Files are where responses are: `/v1/responses` has `/v1/files` beside it."""
    beside = entry.api_path.rpartition("/")[0]
    url = "/".join((entry.base_url.rstrip("/") + beside, *(quote(part, safe="") for part in path)))
    asked = {**query} if entry.api_version is None else {"api-version": entry.api_version, **query}
    return f"{url}?{urlencode(asked)}" if asked else url


def _failure(response: httpx2.Response) -> Failure | None:
    status = response.status_code
    if status in (204, 404):
        return None
    if response.is_success:
        # A proxy's maintenance page is a 200, too.
        return None if _says_deleted(response) else Failure("an answer that does not say deleted", may_pass=True)
    return _refusal(status)


def _refusal(status: int) -> Failure:
    """The failure that an unsuccessful status means."""
    return Failure(f"status {status}", may_pass=status in _PASSING_STATUSES or status >= 500)


def _says_deleted(response: httpx2.Response) -> bool:
    try:
        told = response.json()
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("deleted") is True


def _json(answer: httpx2.Response | Failure) -> dict[str, Any] | Failure:
    if isinstance(answer, Failure):
        return answer
    if not answer.is_success:
        return _refusal(answer.status_code)
    try:
        said = answer.json()
    except (ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) else Failure("an answer that is not an object", may_pass=True)


def _id(said: dict[str, Any]) -> str | Failure:
    made = said.get("id")
    return made if isinstance(made, str) and made.strip(".") else Failure("an answer without an id", may_pass=True)
