"""Calls of a provider through the real adapter, over a real socket."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
import pytest

from minichat.domain.identity import TenantId
from minichat.provider_entries import Provider, as_configured
from minichat.providers.chunks import Completed, Failed, Incomplete, ProviderChunk, TextDelta
from minichat.providers.prompt import Prompt, PromptMessage
from minichat.providers.registry import Providers

WAIT_SECONDS = 60
TENANT = TenantId("acme")


def an_entry(url: str, **said: Any) -> Provider:
    """An entry without retries for a provider at this address."""
    values: dict[str, Any] = {"base_url": url, "allow_insecure": True, "retries": 0}
    return Provider(**(values | said))


def a_prompt(text: str) -> Prompt:
    """A conversation of one message."""
    return Prompt("small-1", "Be brief.", (PromptMessage("user", text),), max_output_tokens=64)


@asynccontextmanager
async def providers_of(entry: Provider) -> AsyncIterator[Providers]:
    """The registry with one provider, named `it`, for the time of a `with`."""
    providers = Providers(as_configured({"it": entry}))
    try:
        yield providers
    finally:
        await providers.aclose()


def chunks_of(entry: Provider, prompt: Prompt, tenant_id: TenantId = TENANT) -> list[ProviderChunk]:
    """Every chunk of one call."""

    async def run() -> list[ProviderChunk]:
        async with asyncio.timeout(WAIT_SECONDS), providers_of(entry) as providers:
            return [chunk async for chunk in providers.stream(tenant_id, "it", prompt)]

    return asyncio.run(run())


def answered(url: str, text: str, **said: Any) -> list[ProviderChunk]:
    """Every chunk of one call; the last one is the only terminal one."""
    chunks = chunks_of(an_entry(url, **said), a_prompt(text))
    assert [chunk for chunk in chunks if isinstance(chunk, Completed | Incomplete | Failed)] == chunks[-1:]
    return chunks


def text_of(chunks: list[ProviderChunk]) -> str:
    """The text of all deltas."""
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


def failure(url: str, text: str, **said: Any) -> Failed:
    """The failure that a call ends with."""
    last = answered(url, text, **said)[-1]
    assert isinstance(last, Failed)
    return last


async def from_bytes(
    replies: list[bytes | None], *, times: list[float] | None = None, **said: Any
) -> tuple[list[ProviderChunk], int]:
    """What the adapter makes of prepared replies, one per connection (None: silence), and how many it asked for.

    `times` gets the moment of each request, in seconds.
    """
    calls, left = 0, asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await reader.readuntil(b"\r\n\r\n")
        if times is not None:
            times.append(time.monotonic())
        raw = replies[min(calls, len(replies)) - 1]
        if raw is None:
            await left.wait()
        else:
            writer.write(raw)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, asyncio.timeout(WAIT_SECONDS), providers_of(an_entry(url, **said)) as providers:
        chunks = [chunk async for chunk in providers.stream(TENANT, "it", a_prompt("hi"))]
        left.set()
    return chunks, calls


async def until(url: str, holds: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """What the provider has seen, once it is as expected."""
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client, asyncio.timeout(WAIT_SECONDS):
        while not holds(found := (await client.get("/control/stats")).json()):  # noqa: ASYNC110  another process
            await asyncio.sleep(0.01)
    return dict(found)


async def closing_frees_the_connection(url: str, entry: Provider, script: str) -> None:
    """Closes an answer after its first delta, and sees that the provider at that URL loses its connection."""
    # Closing must not be left to the garbage collector, which may come late or, in a frozen function, never.
    sys.set_asyncgen_hooks(finalizer=lambda _: None)
    before = await until(url, lambda seen: seen["open"] == 0)
    async with providers_of(entry) as providers:
        async with aclosing(providers.stream(TENANT, "it", a_prompt(script))) as chunks:
            assert isinstance(await anext(chunks), TextDelta)
            await until(url, lambda seen: seen["open"] == 1)
        # The client is still open: it is the answer's end that closed the connection.
        after = await until(url, lambda seen: seen["open"] == 0)
    assert after["broken_off"] == before["broken_off"] + 1


async def cancelling_frees_the_connection(url: str, entry: Provider, script: str) -> None:
    """Cancels the reader of an answer, and sees that the provider at that URL loses its connection."""
    before = await until(url, lambda seen: seen["open"] == 0)
    async with providers_of(entry) as providers:

        async def read() -> None:
            async with aclosing(providers.stream(TENANT, "it", a_prompt(script))) as chunks:
                async for _ in chunks:
                    pass

        reading = asyncio.create_task(read())
        await until(url, lambda seen: seen["open"] == 1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        after = await until(url, lambda seen: seen["open"] == 0)
    assert after["broken_off"] == before["broken_off"] + 1
