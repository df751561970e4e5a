"""Providers by their names in the policy: the adapter, the key and the clients of this process."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import httpx2

from minichat import greenlets
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import TenantId
from minichat.provider_entries import EntriesOf, Provider, ProviderKind
from minichat.providers import credentials, transport
from minichat.providers.chunks import Failed, ProviderChunk
from minichat.providers.prompt import Prompt

MAX_KEPT_CONNECTIONS = 200
"""Idle ones. Those in use are as many as the streams, which are limited elsewhere."""
KEPT_SECONDS = 3
"""How long an idle connection is used again: servers close theirs after five seconds and more, and a request that meets
that moment fails without an answer."""


class Adapter(Protocol):
    """A module that knows one wire format."""

    def exchange(self, entry: Provider, prompt: Prompt, /) -> transport.Exchange:
        """The request for a prompt, and the reader of its answer."""


class Providers:
    """The providers in force. Clients and keys are made when first needed: a cold start pays for neither.

    Clients are shared by all tenants; the address, the key and its header come with each call.
    """

    def __init__(self, entries_of: EntriesOf) -> None:
        self._entries_of = entries_of
        self._clients: dict[bool, httpx2.AsyncClient] = {}
        self._keys = credentials.ProviderKeys()

    async def stream(
        self, tenant_id: TenantId, provider_id: str, prompt: Prompt
    ) -> AsyncGenerator[ProviderChunk, None]:
        """The provider's answer to a tenant's prompt, ending with exactly one terminal chunk."""
        try:
            entry = (await greenlets.run(self._entries_of, tenant_id)).get(provider_id)
        except ServiceUnavailable:
            yield Failed("provider_error", "the tenant's providers cannot be looked up", reached=False)
            return
        if entry is None:
            yield Failed("provider_error", f"no provider {provider_id!r} is configured", reached=False)
            return
        key = None if entry.auth is None else credentials.ProviderKey(self._keys, entry.auth.secret)
        if key is not None and await key.current() is None:
            where = credentials.described(key.secret)
            diagnostic = f"providers.{provider_id}.auth.secret: {where} has no key, or cannot be read"
            yield Failed("provider_error", diagnostic, reached=False)
            return
        if not entry.tells_who_asks:
            prompt = replace(prompt, user=None, metadata={})
        exchange = adapter(entry.kind).exchange(entry, prompt)
        if prompt.traceparent is not None:
            exchange = replace(exchange, headers={**exchange.headers, "traceparent": prompt.traceparent})
        line = transport.Line(self._client(entry), entry, key, provider_id)
        async with aclosing(transport.stream(line, exchange)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def aclose(self) -> None:
        """Closes every connection."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, entry: Provider) -> httpx2.AsyncClient:
        anywhere = entry.allow_insecure
        if (client := self._clients.get(anywhere)) is None:
            from minichat.providers import egress  # noqa: PLC0415  a third of the cost of all adapters

            limits = httpx2.Limits(
                max_connections=None, max_keepalive_connections=MAX_KEPT_CONNECTIONS, keepalive_expiry=KEPT_SECONDS
            )
            client = self._clients[anywhere] = egress.async_client(limits, anywhere=anywhere)
        return client


def adapter(kind: ProviderKind) -> Adapter:
    """The adapter of a kind, imported when first needed: a cold start pays only for adapters that it calls."""
    match kind:
        case "openai_responses" | "azure_openai_responses":
            from minichat.providers import openai_responses  # noqa: PLC0415

            return openai_responses
        case "openai_chat":
            from minichat.providers import openai_chat  # noqa: PLC0415

            return openai_chat
        case "anthropic_messages":
            from minichat.providers import anthropic_messages  # noqa: PLC0415

            return anthropic_messages
        case "bedrock_converse":
            from minichat.providers import bedrock_converse  # noqa: PLC0415

            return bedrock_converse
