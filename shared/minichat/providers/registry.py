"""Providers by the name that a policy gives them: the adapter, the key and the one client of this process."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import httpx2

from minichat import settings
from minichat.providers import credentials, openai_responses
from minichat.providers.chunks import Failed, ProviderChunk
from minichat.providers.prompt import Prompt

MAX_CONNECTIONS = 200


class Providers:
    """The configured providers. Client and keys are made when first needed: a cold start pays for neither."""

    def __init__(self, entries: Mapping[str, settings.Provider]) -> None:
        self._entries = entries
        self._client: httpx2.AsyncClient | None = None
        self._keys: dict[str, str] = {}

    async def stream(self, provider_id: str, prompt: Prompt) -> AsyncGenerator[ProviderChunk, None]:
        """The provider's answer to a prompt, ending with exactly one terminal chunk."""
        entry = self._entries.get(provider_id)
        if entry is None:
            yield Failed("provider_error", f"no provider {provider_id!r} is configured", reached=False)
            return
        key = None
        if entry.auth is not None and (key := await self._key(provider_id, entry.auth.secret)) is None:
            where = credentials.described(entry.auth.secret)
            diagnostic = f"providers.{provider_id}.auth.secret: {where} has no key, or cannot be read"
            yield Failed("provider_error", diagnostic, reached=False)
            return
        async with aclosing(openai_responses.stream(self._opened(), entry, key, prompt)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Failed) and chunk.diagnostic.startswith("status 401"):
                    self._keys.pop(provider_id, None)  # it may have been rotated: the next call reads it again
                yield chunk

    async def aclose(self) -> None:
        """Closes every connection."""
        if self._client is not None:
            await self._client.aclose()

    def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
            self._client = httpx2.AsyncClient(follow_redirects=False, limits=limits, trust_env=False)
        return self._client

    async def _key(self, provider_id: str, secret: settings.Secret) -> str | None:
        if (key := self._keys.get(provider_id)) is None:
            key = await asyncio.to_thread(credentials.read, secret)
            if key is not None:
                self._keys[provider_id] = key
        return key
