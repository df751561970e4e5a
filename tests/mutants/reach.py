"""Which tests reach which functions: every test once, and a note of each function that it enters.

Functions, not lines: a tracer that is called for each line makes the properties take minutes.
"""

import ast
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType, FrameType

import pytest


@dataclass(frozen=True)
class Reach:
    """The tests by the function that they enter (its module and first line), and the seconds of each test
    that passes."""

    root: Path
    entered: Mapping[tuple[str, int], frozenset[str]]
    seconds: Mapping[str, float]

    @cached_property
    def breadth(self) -> Mapping[str, int]:
        """How many functions each test enters: one that enters few is about them."""
        return Counter(test for tests in self.entered.values() for test in tests)

    def tests(self, path: str, number: int, at_most: float) -> list[str]:
        """The tests that enter the function of a line, those first that enter the fewest others. Outside of functions,
        those that enter any of the module or are in a file that imports it, which come first, the fastest first.

        As many as take no more than these seconds, or one.
        """
        first = _function(self.root / path, number)
        if first is None:
            importing = self._importing(path)
            found = importing.union(*(tests for (where, _), tests in self.entered.items() if where == path))
            rank = {test: (float(test not in importing), self.seconds[test], test) for test in found}
        else:
            found = self.entered.get((path, first), frozenset())
            rank = {test: (self.breadth[test], self.seconds[test], test) for test in found}
        taken, chosen = 0.0, list[str]()
        for test in sorted(found, key=rank.__getitem__):
            if not chosen or taken + self.seconds[test] <= at_most:
                taken += self.seconds[test]
                chosen.append(test)
        return chosen

    def _importing(self, path: str) -> frozenset[str]:
        """The tests in files that import a module: what a table in it says they may ask without entering a function."""
        module = path.removeprefix("shared/").removesuffix(".py").replace("/", ".")
        files = {test: test.partition("::")[0] for test in self.seconds}
        importing = {file for file in {*files.values()} if module in _imported(self.root / file)}
        return frozenset(test for test, file in files.items() if file in importing)


def _imported(file: Path) -> Iterator[str]:
    """What a file imports: modules, and names of them, which may be modules too."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def _function(file: Path, number: int) -> int | None:
    """The first line, as its code has it, of the innermost function whose body has this line."""
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.body[0].lineno <= number <= (node.end_lineno or 0)
    ]
    if not functions:
        return None
    innermost = max(functions, key=lambda node: node.lineno)
    return min([innermost.lineno, *(decorator.lineno for decorator in innermost.decorator_list)])


class Watch:
    """A plugin of pytest: notes the functions of some folders that each test enters, and what it takes."""

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        self._root = root
        self._folders = tuple(f"{root / folder}/" for folder in folders)
        self._now: set[CodeType] = set()
        self.entered: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails without a mutant judges none."""
        if report.failed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Around each test, its fixtures included."""
        self._now = set()
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        began = time.monotonic()
        result = yield
        self.seconds[item.nodeid] = time.monotonic() - began
        sys.settrace(None)
        for code in self._now.copy():  # a server's threads go on
            if code.co_filename.startswith(self._folders):
                path = Path(code.co_filename).relative_to(self._root).as_posix()
                self.entered[path, code.co_firstlineno].add(item.nodeid)
        return result

    def _enter(self, frame: FrameType, event: str, argument: object) -> None:
        self._now.add(frame.f_code)


def reach(root: Path, folders: Sequence[str], groups: Sequence[Sequence[str]]) -> list[Reach]:
    """Runs the tests, each group in a process of its own, all at once. One that fails is told, and judges nothing.

    Raises CalledProcessError when they cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="minichat-mutants-") as kept, ThreadPoolExecutor() as threads:
        notes = [Path(kept) / f"{number}.json" for number in range(len(groups))]
        return list(threads.map(lambda group, file: _reach(root, folders, group, file), groups, notes))


def _reach(root: Path, folders: Sequence[str], tests: Sequence[str], notes: Path) -> Reach:
    command = [sys.executable, "-m", "tests.mutants.reach", str(notes), str(root), json.dumps([*folders]), *tests]
    subprocess.run(command, cwd=root, check=True, stdout=sys.stderr)
    told = json.loads(notes.read_text("utf-8"))
    return Reach(root, {(path, first): frozenset(tests) for path, first, tests in told["entered"]}, told["seconds"])


def _main(notes: str, root: str, folders: str, *tests: str) -> int:
    watch = Watch(Path(root), json.loads(folders))
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short", *tests], plugins=[watch])
    entered = [(path, first, sorted(found - watch.failed)) for (path, first), found in watch.entered.items()]
    seconds = {test: taken for test, taken in watch.seconds.items() if test not in watch.failed}
    Path(notes).write_text(json.dumps({"entered": entered, "seconds": seconds}), "utf-8")
    return 0 if code == pytest.ExitCode.TESTS_FAILED else int(code)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
