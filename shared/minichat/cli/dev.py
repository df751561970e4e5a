"""`minichat dev`: the whole product on this machine."""

import argparse
import json
import os
import shlex
import signal
import socket
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from minichat.local import stack
from minichat.local.engine import KINDS
from minichat.local.stack import Stack, Wish


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("dev", help="run the local stack", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default 8080)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--engine", default="ministack", help=f"{', '.join(KINDS)}, or the URL of a running one")
    parser.add_argument("--no-auth", action="store_true", help="requests without a token are one development user's")
    parser.add_argument("--config", type=Path, help="settings, as JSON or YAML")
    parser.add_argument("--policy", type=Path, help="models, prices and limits, as JSON or YAML")
    parser.add_argument("--provider-url", help="where the provider `openai` is; any server of its wire format")
    parser.add_argument("--state", type=Path, help="keep tables and keys in this folder")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Starts the stack, says how to use it, and stops it at Ctrl-C or SIGTERM."""
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    _refuse_taken_port(options.host, options.port)
    running = stack.start(
        Wish(
            port=options.port,
            host=options.host,
            engine=options.engine,
            auth=not options.no_auth,
            config=options.config,
            policy=options.policy,
            provider_url=options.provider_url,
            state=options.state,
        )
    )
    try:
        _announce(running)
        while not stopping.wait(0.5):
            running.check()
    finally:
        running.stop()
    return 0


def _announce(running: Stack) -> None:
    chat_id = running.first_chat()
    url = f"{running.base_url}/chats/{chat_id}/messages:stream"
    curl = (
        f"curl -N {url} -H {shlex.quote(f'Authorization: Bearer {running.token}')} "
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps({'content': 'Hello, who are you?'}))}"
    )
    about = {
        "base_url": running.base_url,
        "token": running.token,
        "chat_id": chat_id,
        "provider_url": running.provider_url,
        "engine_url": running.engine_url,
        "environment": running.environment,
        "pids": {child.name: child.pid for child in running.children} | {"minichat dev": os.getpid()},
    }
    file = running.state / "dev.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(about, indent=2), encoding="utf-8")
    print(
        f"Mini Chat is ready.\n\n"
        f"  base URL  {running.base_url}\n"
        f"  provider  {running.provider_url or 'as configured'}\n"
        f"  engine    {running.engine_url}\n"
        f"  token     {running.token}\n\n"
        f"Stream a first answer:\n\n  {curl}\n\n"
        f"Ctrl-C stops everything.",
        flush=True,
    )


def _refuse_taken_port(host: str, port: int) -> None:
    """Raises OSError with a sentence when somebody listens there; 0 is always free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                f"Port {port} of {host} cannot be used: {error.strerror}. Choose another with --port."
            ) from None
