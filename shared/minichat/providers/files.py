"""What a provider keeps of a chat, taken away: files and vector stores, as OpenAI has them and whoever follows it.

What it is given is in `providers.uploads`, which asks through the same client.

Nothing is tried twice here: who calls has a queue that comes again. A failure says its kind and nothing else, for it is
stored and logged: no address, no key, no id of the provider's, and not a word of its answer.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from minichat.domain.cleanup import Failure
from minichat.domain.identity import TenantId
from minichat.providers import credentials
from minichat.settings import Provider, Secret

MAX_CONNECTIONS = 32

# A time-out, a conflict with another change of the same thing, and a key that is being rotated: they change by waiting.
PASSING_STATUSES = frozenset({401, 408, 409, 425, 429})


class Files:
    """Files and vector stores at the configured providers; any number of threads may share one.

    Each function answers None when the thing is gone, also when it was gone before (404), or why it may still be there.
    """

    def __init__(self, entries: Mapping[str, Provider]) -> None:
        self._entries = entries
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        self._client = httpx2.Client(follow_redirects=False, limits=limits, trust_env=False)
        self._keys: dict[str, str] = {}

    def delete_file(self, provider_id: str, file_id: str) -> Failure | None:
        """Deletes a file."""
        return self._delete(provider_id, "files", file_id)

    def take_out(self, provider_id: str, vector_store_id: str, file_id: str) -> Failure | None:
        """Takes a file out of a vector store; the file itself stays."""
        return self._delete(provider_id, "vector_stores", vector_store_id, "files", file_id)

    def delete_vector_store(self, provider_id: str, vector_store_id: str) -> Failure | None:
        """Deletes a vector store; the files that are in it stay."""
        return self._delete(provider_id, "vector_stores", vector_store_id)

    def ask(
        self, tenant_id: TenantId, provider_id: str, method: str, *path: str, **content: Any
    ) -> httpx2.Response | Failure:
        """Any answer of the provider's to one request; `content` is what httpx2 takes: json, data, files, params."""
        del tenant_id  # its own account, once a provider's entry has such
        entry = self._entries.get(provider_id)
        if entry is None:
            return Failure("the provider is not configured", may_pass=True)
        headers = {}
        if entry.auth is not None:
            if (key := self._key(provider_id, entry.auth.secret)) is None:
                return Failure("no key, or it cannot be read", may_pass=True)
            headers[entry.auth.header] = entry.auth.prefix + key
        times = entry.timeouts
        timeout = httpx2.Timeout(times.idle_seconds, connect=times.connect_seconds, pool=times.connect_seconds)
        try:
            answer = self._client.request(method, _url(entry, path), headers=headers, timeout=timeout, **content)
        except httpx2.TimeoutException:
            return Failure("no answer in time", may_pass=True)
        except httpx2.HTTPError:
            return Failure("no connection", may_pass=True)
        except (httpx2.InvalidURL, ValueError):
            return Failure("no request can be made", may_pass=True)
        if answer.status_code == 401:
            self._keys.pop(provider_id, None)
        return answer

    def close(self) -> None:
        """Closes every connection."""
        self._client.close()

    def _delete(self, provider_id: str, *path: str) -> Failure | None:
        entry = self._entries.get(provider_id)
        if entry is None:
            # A deployment that forgot an entry, or has yet to get it, must not lose track of what is there.
            return Failure("the provider is not configured", may_pass=True)
        if not all(part.strip(".") for part in path):
            return Failure("an id that is none", may_pass=False)
        headers = {}
        if entry.auth is not None:
            if (key := self._key(provider_id, entry.auth.secret)) is None:
                return Failure("no key, or it cannot be read", may_pass=True)
            headers[entry.auth.header] = entry.auth.prefix + key
        answer = self._answer(entry, path, headers)
        if isinstance(answer, Failure):
            return answer
        if answer.status_code == 401:
            self._keys.pop(provider_id, None)  # it may have been rotated: the next call reads it again
        return _failure(answer)

    def _answer(self, entry: Provider, path: tuple[str, ...], headers: dict[str, str]) -> httpx2.Response | Failure:
        times = entry.timeouts
        timeout = httpx2.Timeout(times.idle_seconds, connect=times.connect_seconds, pool=times.connect_seconds)
        try:
            return self._client.delete(_url(entry, path), headers=headers, timeout=timeout)
        except httpx2.TimeoutException:
            return Failure("no answer in time", may_pass=True)
        except httpx2.HTTPError:
            return Failure("no connection", may_pass=True)
        except (httpx2.InvalidURL, ValueError):
            return Failure("no request can be made", may_pass=True)

    def _key(self, provider_id: str, secret: Secret) -> str | None:
        if (key := self._keys.get(provider_id)) is None:
            key = credentials.read(secret)
            if key is not None:
                self._keys[provider_id] = key
        return key


def _url(entry: Provider, path: tuple[str, ...]) -> str:
    """Files are where responses are: `/v1/responses` has `/v1/files` beside it."""
    beside = entry.api_path.rpartition("/")[0]
    return "/".join((entry.base_url.rstrip("/") + beside, *(quote(part, safe="") for part in path)))


def _failure(response: httpx2.Response) -> Failure | None:
    status = response.status_code
    if status in (204, 404):
        return None
    if response.is_success:
        # A page of a proxy under repair is a 200, too.
        return None if _says_deleted(response) else Failure("an answer that does not say deleted", may_pass=True)
    return Failure(f"status {status}", may_pass=status in PASSING_STATUSES or status >= 500)


def _says_deleted(response: httpx2.Response) -> bool:
    try:
        told = response.json()
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("deleted") is True
