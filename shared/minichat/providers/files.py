"""What a provider keeps of a chat, taken away: files and vector stores, as OpenAI has them and whoever follows it.

What it is given is in `providers.uploads`, which asks through the same client.

Nothing is tried twice here: who calls has a queue that comes again. A failure says its kind and nothing else, for it is
stored and logged: no address, no key, no id of the provider's, and not a word of its answer.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import httpx2

from minichat.domain.cleanup import Failure
from minichat.domain.identity import TenantId
from minichat.provider_entries import Provider
from minichat.providers import credentials, egress
from minichat.providers.transport import AddressRefused

MAX_CONNECTIONS = 32

# A time-out, a conflict with another change of the same thing, and a key that is being rotated: they change by waiting.
_PASSING_STATUSES = frozenset({401, 408, 409, 425, 429})


class Files:
    """Files and vector stores at the configured providers; any number of threads may share one.

    Each function answers None when the thing is gone, also when it was gone before (404), or why it may still be there.
    """

    def __init__(self, entries: Mapping[str, Provider]) -> None:
        self._entries = entries
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        self._clients = {
            anywhere: egress.client(limits, anywhere=anywhere)
            for anywhere in {entry.allow_insecure for entry in entries.values()}
        }
        self._keys = credentials.ProviderKeys()

    def delete_file(self, tenant_id: TenantId, provider_id: str, file_id: str) -> Failure | None:
        """Deletes a file."""
        return self._delete(tenant_id, provider_id, "files", file_id)

    def take_out(self, tenant_id: TenantId, provider_id: str, vector_store_id: str, file_id: str) -> Failure | None:
        """Takes a file out of a vector store; the file itself stays."""
        return self._delete(tenant_id, provider_id, "vector_stores", vector_store_id, "files", file_id)

    def delete_vector_store(self, tenant_id: TenantId, provider_id: str, vector_store_id: str) -> Failure | None:
        """Deletes a vector store; the files that are in it stay."""
        return self._delete(tenant_id, provider_id, "vector_stores", vector_store_id)

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

        `query` is what the address asks for.
        """
        entry = self._entries.get(provider_id)
        if entry is None:
            # A deployment that forgot an entry, or has yet to get it, must not lose track of what is there.
            return Failure("the provider is not configured", may_pass=True)
        if not entry.keeps_files:
            # It did when they were made; what answers 404 to every path must not count as proof that they are gone.
            return Failure("a provider of this kind keeps no files", may_pass=True)
        if not all(part.strip(".") for part in path):
            return Failure("an id that is none", may_pass=False)
        entry = entry.of_tenant(tenant_id)
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

    def _delete(self, tenant_id: TenantId, provider_id: str, *path: str) -> Failure | None:
        answer = self.ask(tenant_id, provider_id, "DELETE", *path)
        return answer if isinstance(answer, Failure) else _failure(answer)

    def _answer(self, entry: Provider, method: str, url: str, **content: Any) -> httpx2.Response | Failure:
        times, client = entry.timeouts, self._clients[entry.allow_insecure]
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
        # A page of a proxy under repair is a 200, too.
        return None if _says_deleted(response) else Failure("an answer that does not say deleted", may_pass=True)
    return refusal(status)


def refusal(status: int) -> Failure:
    """What a status that is no success says of the request."""
    return Failure(f"status {status}", may_pass=status in _PASSING_STATUSES or status >= 500)


def _says_deleted(response: httpx2.Response) -> bool:
    try:
        told = response.json()
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("deleted") is True
