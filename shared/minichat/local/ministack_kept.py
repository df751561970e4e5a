"""ministack with its state on disk: run by that engine's own interpreter, never imported here.

The engine writes what it holds only when it is stopped, and its streams not at all. This starts it with a snapshot of
everything, taken soon after each write: a fork of the process has all of it as of one moment, and writes it to a file
while the engine goes on. The file takes the place of the one before in one step.
"""

import asyncio
import contextlib
import copy
import fcntl
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ministack.app as engine
from ministack.core import persistence
from ministack.services import dynamodb, sqs

PAUSE_SECONDS = 0.2
_READS = ("Get", "BatchGet", "TransactGet", "Query", "Scan", "List", "Describe", "Receive")
_STREAMS = "streams of tables"


class Snapshots:
    """The file, and the process that writes it; one at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "snapshot.json"
        # A writer outlives an engine that is killed, and holds this until it is done.
        self._lock = (folder / "snapshot.lock").open("w", encoding="utf-8")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._writer: int | None = None
        self.is_due = False

    def load(self) -> Callable[[str], Any]:
        """Restores the streams; returns what gives the engine the state of a service, or None."""
        try:
            text = self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            loaded: Callable[[str], Any] = persistence.load_state  # what the engine wrote by itself
            return loaded
        held: dict[str, Any] = json.loads(text, object_hook=persistence._json_object_hook)
        if streams := held.pop(_STREAMS, None):
            dynamodb._stream_records.update(streams["records"])
            dynamodb._stream_trimmed.update(streams["trimmed"])
            dynamodb._stream_seq_counter = streams["counter"]
        return held.get

    def take(self) -> None:
        """Forks a process that writes what the engine holds now; called between requests."""
        self.is_due = False
        with dynamodb._lock:  # which the thread that removes expired items has while it does
            self._writer = os.fork()
        if self._writer == 0:
            signal.set_wakeup_fd(-1)
            gc.disable()
            copied = 1
            with contextlib.suppress(BaseException):
                self._write()
                copied = 0
            os._exit(copied)

    def is_written(self, *, wait: bool = False) -> bool:
        """Whether no process writes, any more; one that failed is due again."""
        if self._writer is None:
            return True
        ended, status = os.waitpid(self._writer, 0 if wait else os.WNOHANG)
        if ended:
            self._writer = None
            if status:
                self.is_due = True
                print(f"no snapshot could be written to {self._file}", file=sys.stderr, flush=True)
        return bool(ended)

    def last(self, _services: object) -> None:
        """Takes a snapshot and returns when it is written; in place of what the engine writes when it stops."""
        self.is_written(wait=True)
        self.take()
        self.is_written(wait=True)

    def _write(self) -> None:
        # This process is the copy.
        copy.deepcopy = lambda one, *_: one
        held = {name: get() for name, get in engine._build_persistence_save_dict().items()}
        held[_STREAMS] = {
            "records": dynamodb._stream_records,
            "trimmed": dynamodb._stream_trimmed,
            "counter": dynamodb._stream_seq_counter,
        }
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps(held, default=persistence._json_default), encoding="utf-8")
        draft.replace(self._file)


async def keep(snapshots: Snapshots) -> None:
    """Takes a snapshot soon after each write, one after another."""
    while True:
        await asyncio.sleep(PAUSE_SECONDS)
        if snapshots.is_written() and snapshots.is_due:
            snapshots.take()


def main() -> None:
    """Serves as ministack does, and keeps what it holds in `STATE_DIR`."""
    snapshots = Snapshots(Path(persistence.STATE_DIR))
    held = snapshots.load()
    engine.load_state = lambda service: _taken_over(held(service)) if service == "sqs" else held(service)
    engine.save_all = snapshots.last
    served = engine.app

    async def kept(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            keeping = asyncio.create_task(keep(snapshots))
            await served(scope, receive, send)
            keeping.cancel()
            return
        try:
            await served(scope, receive, send)
        finally:
            snapshots.is_due |= _may_write(scope)

    engine.app = kept
    engine.main()


def _taken_over(state: Any) -> Any:
    """The queues of an engine that had another port, which is in their names; what was received is there again, because
    whoever had received it is gone."""
    if not state:
        return state
    queues: dict[Any, Any] = {}
    for (account, region, url), queue in state["queues"]._data.items():
        here = urlsplit(url)._replace(netloc=sqs._CANONICAL_NETLOC).geturl()
        for message in queue["messages"]:
            if message["receipt_handle"] is not None:
                message["visible_at"] = 0
        moved = queues.setdefault((account, region, here), {**queue, "url": here, "messages": []})
        moved["messages"] += queue["messages"]
    state["queues"]._data = queues
    return state


def _may_write(scope: Any) -> bool:
    target = dict(scope.get("headers", ())).get(b"x-amz-target", b"").decode("latin-1")
    return scope.get("method") not in ("GET", "HEAD") and not target.rpartition(".")[2].startswith(_READS)


if __name__ == "__main__":
    main()
