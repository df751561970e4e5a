"""The streaming runtime as its wrapper starts it, with an app that does what the path says."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minichat.local.issuer import Issuer
from minichat.settings import Store
from tests.conftest import ROOT
from tests.support.aws.runtime_api import RuntimeApi
from tests.support.http.gateway import proxy_event

LAYER = ROOT / "layers" / "stream_runtime"

APP = """
import asyncio, contextvars, json, os, sys, time
import stream_runtime_api

kept = contextvars.ContextVar("kept", default=None)

class Überraschung(Exception):
    pass

def call_0(message):
    raise Überraschung(message)

for number in range(1, 100):
    # One after the other, each of its own: a traceback tells repeated lines once.
    name = f"call_{number}_" + "x" * 80
    below = f"call_{number - 1}_" + "x" * 80 if number > 1 else "call_0"
    exec(f"def {name}(message): {below}(message)")
deep = globals()[name]

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("the app has stopped", file=sys.stderr, flush=True)
        return
    request = await receive()
    headers = dict(scope["headers"])
    path = scope["path"].rsplit("/", 1)[1]
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream"),
             (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-length", b"99")]}

    async def body(data, more=True):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async def at_the_gate():
        return await asyncio.open_connection("127.0.0.1", int(headers[b"x-gate"]))

    if path == "exit":
        raise SystemExit(3)
    if path == "early":
        raise ValueError("before the start")
    if path == "cancelled":
        raise asyncio.CancelledError
    if path == "bodiless":
        await body(b"first")
    if path == "malformed":
        await send({"type": "http.response.start", "status": 200, "headers": [("text", "and not bytes")]})
    if path == "silent":
        return
    await send(start)
    if path == "empty":
        await body(b"", False)
        return
    if path == "echo":
        query = scope["query_string"].decode()
        await body(f"{scope['method']} {query} {headers[b'x-name'].decode()} ".encode() + request["body"])
        return
    if path == "told":
        told = {"path": scope["path"], "state": scope["state"], "trace": os.environ.get("_X_AMZN_TRACE_ID")}
        told |= {"of several": getattr(stream_runtime_api.of_several.get(), "headers", None), "kept": kept.get()}
        kept.set(scope["state"]["aws_request_id"])
        told |= {"headers": [[name.decode(), value.decode()] for name, value in scope["headers"]]}
        await body(json.dumps(told | {"client": scope["client"][0], "bytes": len(request["body"])}).encode())
        return
    if path == "gated":
        reader, writer = await at_the_gate()
        for number in range(3):
            await body(b"data: %d\\n\\n" % number)
            await reader.readline()
        writer.close()
    if path == "busy":
        reader, writer = await at_the_gate()
        reading = asyncio.ensure_future(reader.readline())
        while not reading.done():
            time.sleep(0.3)
            await asyncio.sleep(0)
        writer.close()
    if path == "long":
        reader, writer = await at_the_gate()
        for number in range(int(headers[b"x-chunks"])):
            sending = asyncio.ensure_future(body(b"x" * 65_536))
            if not (await asyncio.wait({sending}, timeout=0.5))[0]:
                writer.write(b"stalled\\n")
            await sending
        writer.write(b"over\\n")
        writer.close()
    if path == "after":
        await body(b"told", False)
        reader, writer = await at_the_gate()
        await reader.readline()
        writer.close()
        return
    if path == "late":
        await body(b"data: 0\\n\\n")
        raise ValueError("after the start")
    if path == "deep":
        deep("message " * 10_000)
    if path == "twice":
        await send(start)
    await body(b"", False)
"""


@dataclass(frozen=True)
class Running:
    """The runtime's process."""

    process: asyncio.subprocess.Process
    folder: Path

    def terminate(self) -> None:
        """Asks it to stop, as Lambda does."""
        self.process.terminate()

    @property
    def log(self) -> str:
        """What it has written so far to its standard error."""
        return (self.folder / "log").read_text(encoding="utf-8")

    @property
    def output(self) -> str:
        """What it has written so far to its standard output: lines of the app's log, and metrics."""
        return (self.folder / "output").read_text(encoding="utf-8")

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(30):
            return await self.process.wait()


@asynccontextmanager
async def running(
    api: RuntimeApi, folder: Path, handler: str = "the_app.app", **environment: str
) -> AsyncIterator[Running]:
    """The runtime, for the time of a `with`."""
    (folder / "the_app.py").write_text(APP, encoding="utf-8")
    with (folder / "log").open("wb") as log, (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(LAYER / "stream-bootstrap"),
            sys.executable,
            "/var/runtime/bootstrap.py",
            env={
                **os.environ,
                **environment,
                "_HANDLER": handler,
                "AWS_LAMBDA_RUNTIME_API": api.host,
                **({"AWS_LAMBDA_MAX_CONCURRENCY": str(api.at_most)} if api.at_most > 1 else {}),
                "LAMBDA_TASK_ROOT": str(folder),
                "PYTHONPATH": str(LAYER),
            },
            stdout=output,
            stderr=log,
        )
    try:
        yield Running(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def variables(store: Store, issuer: Issuer, provider: str) -> dict[str, str]:
    """What the streaming function needs of its environment."""
    entry = {"base_url": provider, "allow_insecure": True, "timeouts": {"connect_seconds": 30}}
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "MINICHAT_STORE__ENDPOINT": str(store.endpoint),
        "MINICHAT_STORE__CONVERSATION_TABLE": store.conversation_table,
        "MINICHAT_STORE__OUTBOX_TABLE": store.outbox_table,
        "MINICHAT_AUTH__JWKS": str(issuer.jwks_file),
        "MINICHAT_CURSOR_SECRET": "secret",
        "MINICHAT_METRICS_NAMESPACE": "MiniChat/test",
        "MINICHAT_PROVIDERS": json.dumps({"openai": entry}),
    }


def an_event(path: str, body: object = None, **headers: str) -> dict[str, Any]:
    """A request to the app."""
    event = proxy_event("POST", path, body=body or {"a": "ü"}, query={"q": "1 2"})
    event["multiValueHeaders"] |= {name.replace("_", "-"): [value] for name, value in headers.items()}
    return event


async def told(api: RuntimeApi, event: dict[str, Any] | bytes, **said: Any) -> dict[str, Any]:
    """What the app was told of a request."""
    answer: dict[str, Any] = json.loads(await (await api.invoke(event, **said)).rest())
    return answer


Comers = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


@asynccontextmanager
async def a_gate() -> AsyncIterator[tuple[str, Comers]]:
    """A port, as text, where the app says how far it is, and who has come there."""
    comers: Comers = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        comers.put_nowait((reader, writer))

    async with await asyncio.start_server(come, "127.0.0.1", 0) as server:
        yield str(server.sockets[0].getsockname()[1]), comers
        for writer in writers:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
