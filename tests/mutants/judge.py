"""Runs the tests of one mutant in a process of its own, which loads the mutant instead of the module.

Processes are forked off one that has loaded all that is not ours: only our modules and the tests are loaded anew.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeAlias

import pytest

from tests.mutants.make import Mutant

Verdict: TypeAlias = Literal["killed", "survived", "does not load"]

STUCK_SECONDS = 60
"""After which a mutant counts as killed: the tests that it runs take a tenth."""
_DOES_NOT_LOAD = 100


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._mutated = source.encode()

    def get_code(self, fullname: str) -> object:  # type: ignore[override]  # never a cached one
        return compile(self._mutated, self.path, "exec", dont_inherit=True)


class _Instead(importlib.abc.MetaPathFinder):
    """Finds one module, mutated."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name = name
        self._loader = _Loader(name, str(path), source)

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        """The mutant's, for its name."""
        return importlib.util.spec_from_loader(fullname, self._loader) if fullname == self._name else None


def judge(mutant: Mutant, root: Path, groups: Sequence[Sequence[str]]) -> Verdict:
    """What these groups of tests say of a mutant, one after the other until one kills it. Without tests it lives."""
    verdicts = (_judge(mutant, root, tests) for tests in groups if tests)
    return next((verdict for verdict in verdicts if verdict != "survived"), "survived")


def _judge(mutant: Mutant, root: Path, tests: Sequence[str]) -> Verdict:
    child = os.fork()
    if child == 0:
        _run(mutant, root, tests)
    status = _ended(child, time.monotonic() + STUCK_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # also what it started and did not stop
    if status is None:
        os.waitpid(child, 0)
        return "killed"
    code = os.waitstatus_to_exitcode(status)
    if code == _DOES_NOT_LOAD:
        return "does not load"
    return "survived" if code == pytest.ExitCode.OK else "killed"


def _ended(child: int, by: float) -> int | None:
    """How the child ended; None when it is still there at that time."""
    while time.monotonic() < by:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.05)
    return None


def _run(mutant: Mutant, root: Path, tests: Sequence[str]) -> None:
    """Never returns."""
    os.setpgid(0, 0)
    void = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(void, stream)
    name = mutant.path.removeprefix("shared/").removesuffix(".py").replace("/", ".")
    assert name not in sys.modules
    sys.meta_path.insert(0, _Instead(name, root / mutant.path, mutant.source))
    try:
        importlib.import_module(name)
    except BaseException:
        os._exit(_DOES_NOT_LOAD)
    # Warnings are errors in tests, and would be in the server that is in their process, where they are none.
    quietly = ["-p", "no:cacheprovider", "-W", "ignore"]
    code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        code = pytest.main(["-x", "-q", *quietly, f"--timeout={STUCK_SECONDS}", *tests])
    finally:
        os._exit(code)
