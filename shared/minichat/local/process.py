"""Child processes that never outlive their parent, and that are waited for until they answer."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1


class ChildFailed(RuntimeError):
    """A child process did not start, or ended by itself; the message has its last words."""


class Child:
    """One child process; its output goes to a file that is read when it fails."""

    def __init__(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603  commands are our own
            [str(part) for part in command],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the parent alone, which stops its children in order.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises ChildFailed when the process has ended."""
        if (code := self._process.poll()) is not None:
            raise ChildFailed(f"{self.name} ended with code {code}:\n{self._last_words()}")

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
        raise ChildFailed(f"{self.name} does not answer at {url}:\n{self._last_words()}")

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
        self._output.seek(0)
        return "\n".join(self._output.read().decode(errors="replace").splitlines()[-15:])


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    # Even kill -9 of the parent must leave no engine behind that holds a port.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
