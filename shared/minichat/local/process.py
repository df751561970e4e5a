"""Child processes that never outlive their parent, and waiting until they answer."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

START_SECONDS = 60
STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1


class CannotStart(RuntimeError):
    """The local stack cannot be started, or not gone on with; the message says why, and what to do about it."""


class ChildFailed(CannotStart):
    """A child process did not start, or ended by itself; the message has its last words."""


class Child:
    """One child process; its output goes to a log file that is quoted when it fails."""

    def __init__(
        self, name: str, command: Sequence[str | Path], logs: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        logs.mkdir(parents=True, exist_ok=True)
        self._log = logs / f"{name.rsplit(maxsplit=1)[-1]}.log"
        with self._log.open("wb") as output, _signals_held():
            self._process = self._start(command, output, environment or {})
            _started.append(self)

    @staticmethod
    def _start(
        command: Sequence[str | Path], output: BinaryIO, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  commands are our own
            [str(part) for part in command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C then reaches only the parent, which stops its children in order.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  no threads yet
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises ChildFailed when the process has ended."""
        if (code := self._process.poll()) is not None:
            how = f"ended with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
            raise ChildFailed(f"{self.name} {how}. {self._last_words()}")

    def wait_until_it_answers(self, url: str) -> None:
        """Returns once the URL answers at all.

        Raises ChildFailed when the process ends first, or does not answer in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            try:
                with urllib.request.urlopen(url, timeout=2):  # noqa: S310  loopback
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.02)
        raise ChildFailed(f"{self.name} does not answer at {url}. {self._last_words()}")

    def stop(self) -> None:
        """Ends the process and everything it started; waits until it is gone."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _last_words(self) -> str:
        said = self._log.read_text(errors="replace").splitlines()
        return "\n".join([f"Its last words, from {self._log}:", *said[-15:]]) if said else "It said nothing."


_started: list[Child] = []


def stop_all() -> None:
    """Ends every child of this process, the youngest first; waits until they are gone."""
    for child in reversed(_started):
        child.stop()


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _signals_held() -> Iterator[None]:
    """Holds signals back during a start: a process that was started but not yet noted could not be stopped."""
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda received, _: came.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in came:
            signal.raise_signal(received)


def _die_with_parent() -> None:
    # Even kill -9 of the parent must leave no engine behind that holds a port.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
