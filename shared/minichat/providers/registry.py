"""Providers by the name that a policy gives them: the adapter, the key and the one client of this process."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import httpx2

from minichat import settings
from minichat.providers import openai_responses
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
        key = await self._key(provider_id, entry)
        if key is None and entry.auth is not None:
            yield Failed("provider_error", f"the key of provider {provider_id!r} cannot be read", reached=False)
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

    async def _key(self, provider_id: str, entry: settings.Provider) -> str | None:
        if entry.auth is None:
            return None
        if provider_id not in self._keys:
            key = await asyncio.to_thread(_read, entry.auth.secret)
            if key is None:
                return None
            self._keys[provider_id] = key
        return self._keys[provider_id]


def _read(secret: settings.Secret) -> str | None:
    if secret.source == "env":
        return settings.secret_from_environment(secret.name)
    import boto3  # noqa: PLC0415  only deployments that keep the key in Secrets Manager pay for the import
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        found = boto3.client("secretsmanager").get_secret_value(SecretId=secret.name)
    except (BotoCoreError, ClientError):
        return None
    return found["SecretString"] or None
