"""`minichat dev`: the whole product on this machine."""

import argparse
import errno
import json
import os
import shlex
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from minichat.local import own_model, stack
from minichat.local.engine import KINDS
from minichat.local.folder_lock import FolderLock
from minichat.local.process import stop_all
from minichat.local.provider_words import ProviderWords
from minichat.local.stack import Stack, StackOptions
from minichat.settings import SettingsError


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("dev", help="run the local stack", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default 8080)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default 127.0.0.1)")
    parser.add_argument("--engine", default="ministack", help=f"{', '.join(KINDS)}, or the URL of a running one")
    parser.add_argument("--no-auth", action="store_true", help="requests without a token are one development user's")
    parser.add_argument("--config", type=Path, help="settings, as JSON or YAML")
    parser.add_argument("--policy", type=Path, help="models, prices and limits, as JSON or YAML")
    parser.add_argument("--provider-url", help="where the provider `openai` is; any server of its wire format")
    parser.add_argument(
        "--provider-kind", choices=own_model.KINDS, help="what the server at --provider-url speaks; it is asked, too"
    )
    parser.add_argument("--model", help="a model of the server at --provider-url, which becomes the only one offered")
    parser.add_argument(
        "--state",
        type=Path,
        help="keep tables and keys in this folder, which one stack has at a time; "
        "an engine that is killed loses at most its last second of writes",
    )
    parser.add_argument(
        "--no-events",
        action="store_true",
        help="leave streams and queues to a `python -m minichat.local.sources` of yours, under a debugger perhaps",
    )
    parser.add_argument("--export-events", action="store_true", help="copy audit and usage events to the export queue")
    parser.add_argument(
        "--containers",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="let containers of `sam local` in, and write their settings to sam-local.json in the state folder; at the "
        "gateway of Docker's bridge, or where you say",
    )
    parser.add_argument(
        "--sam-local",
        nargs="?",
        const=3000,
        type=int,
        metavar="PORT",
        help="also run the built functions in containers, behind this port (3000); includes --containers",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Starts the stack, says how to use it, and stops it at Ctrl-C or SIGTERM, even in the middle of a start."""
    stopping = False
    lock: FolderLock | None = None

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # A handler can interrupt code that holds the lock of an event, a queue or a stream, so it uses none of them.
        # Only the first signal interrupts: stopping the children must not be cut short.
        nonlocal stopping
        if not stopping:
            stopping = True
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        _refuse_what_is_no_such_thing(options)
        lock = _locked(options)
        _refuse_unusable_port(options.host, options.port)
        running = stack.start(_wish(options))
        lock.tell(running.base_url)
        _announce(running, with_token=not options.no_auth)
        words = ProviderWords(running.state)
        while True:
            running.check()
            for failure in words.new():
                print(f"A provider failed. {failure}", file=sys.stderr, flush=True)
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        stopping = True
        stop_all()
        if lock is not None:
            lock.release()  # not before its children have written what they keep
    return 0


def _wish(options: argparse.Namespace) -> StackOptions:
    return StackOptions(
        port=options.port,
        host=options.host,
        engine=options.engine,
        auth=not options.no_auth,
        config=options.config,
        policy=options.policy,
        provider_url=options.provider_url,
        provider_kind=options.provider_kind,
        model=options.model,
        state=options.state,
        events=not options.no_events,
        exports=options.export_events,
        containers=options.containers,
        sam_port=options.sam_local,
    )


def _announce(running: Stack, *, with_token: bool) -> None:
    chat_id = running.first_chat() if running.offers_a_model() else None
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
    kept = running.state != stack.folder(None)
    containers = "" if running.sam_url is None else f"  sam local {running.sam_url}\n"
    where = f"--state {shlex.quote(str(running.state))}" if kept else "--local"
    print(
        f"Mini Chat is ready.\n\n"
        f"  base URL  {running.base_url}\n"
        f"  console   {urlsplit(running.base_url)._replace(path='/console').geturl()}\n"
        f"{containers}"
        f"  provider  {running.provider_url or 'as configured'}\n"
        f"  engine    {running.engine_url}\n"
        f"  token     {running.token if with_token else 'none is needed'}\n\n"
        f"{_first_steps(running, chat_id, where, with_token=with_token)}\n\n"
        f"Ctrl-C stops everything.",
        flush=True,
    )


def _first_steps(running: Stack, chat_id: str | None, where: str, *, with_token: bool) -> str:
    if chat_id is None:
        return (
            "The policy in force enables no model: nobody can start a chat.\n"
            f"Publish one that does:\n\n  .venv/bin/minichat policy publish FILE {where}"
        )
    url = f"{running.base_url}/chats/{chat_id}/messages:stream"
    who = f"-H {shlex.quote(f'Authorization: Bearer {running.token}')} " if with_token else ""
    body = shlex.quote(json.dumps({"content": "Hello, who are you?"}))
    return (
        f"Stream a first answer:\n\n  curl -N {url} {who}-H 'Content-Type: application/json' -d {body}\n\n"
        f"Or talk in another terminal:\n\n  .venv/bin/minichat chat {where}"
    )


def _refuse_what_is_no_such_thing(options: argparse.Namespace) -> None:
    """Raises SettingsError, naming the flag, for a file that is not there and an address that is none."""
    for flag, file in (("--config", options.config), ("--policy", options.policy)):
        if file is not None and not file.is_file():
            raise SettingsError(f"{flag}: there is no file {file}.")
    url = options.provider_url
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
        raise SettingsError(f"--provider-url: {url!r} is no URL such as http://localhost:11434.")


def _locked(options: argparse.Namespace) -> FolderLock:
    """Raises FolderTaken; SettingsError when the folder cannot be had."""
    folder = stack.folder(options.state)
    try:
        return FolderLock(folder)
    except OSError as error:
        raise SettingsError(f"--state: {folder} cannot be used: {error.strerror}.") from None


def _refuse_unusable_port(host: str, port: int) -> None:
    """Raises OSError with a sentence when the port does not exist or is in use; 0 is always free."""
    if not 0 <= port <= 65535:
        raise OSError(f"--port: there is no port {port}: choose one from 1 to 65535, or 0 for a free one.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            raise OSError(f"--host: {host!r} is no address of this machine: {error.strerror}.") from None
        except OSError as error:
            what = "--port: choose another" if error.errno == errno.EADDRINUSE else "--host, --port: choose others"
            raise OSError(f"Port {port} of {host} cannot be used: {error.strerror}. {what}.") from None
