"""What the walk of every write goes by: the table of architecture 5, the writes that the code has, and what happens.

A row of the table is a function that writes; a scene is that function about to be called, in tables made ready for it.
"""

import ast
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

import boto3
from boto3.dynamodb.conditions import Key
from botocore.exceptions import ReadTimeoutError

from minichat.settings import Store
from tests.conftest import ROOT
from tests.support.storage.faults import Killed, hook
from tests.support.storage.invariants import Tables

PACKAGE = ROOT / "shared" / "minichat"
WRITES = ("commit", "try_commit", "update_one", "put_one")
OPERATIONS = ("TransactWriteItems", "UpdateItem", "PutItem")
WAIT_SECONDS = 30

Act = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """A row of the table: what may happen beside it, and the outcomes that it names.

    `lost` is what the caller gets when no answer comes but the table can be asked; `again` what who repeats it gets at
    once, `after` what comes after a death.
    """

    beside: tuple[str, ...]
    lost: str
    again: str
    after: str


@dataclass(frozen=True)
class Scene:
    """A write about to be made. `again` repeats it at once, `after` comes after its process died; both are `act` where
    nothing else is said. `beside` has what may happen at the same time, by the name of its row, and `changes` the
    attributes that tell that somebody came after a death. `is_broken`: it is a repair, and no invariant holds yet.
    What passes over something that changes meanwhile comes to it in its `next_go`, which there always is.
    """

    act: Act
    again: Act | None = None
    after: Act | None = None
    beside: Mapping[str, Act] = field(default_factory=dict)
    changes: frozenset[str] = frozenset()
    is_broken: bool = False
    next_go: Act | None = None


def table() -> dict[str, Row]:
    """The rows of architecture 5, by the name of the function that writes."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("\n## 5. ")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `") and line.endswith("|")]
    found = {}
    for line in lines:
        name, _, beside, lost, again = (_words(cell) for cell in line[1:-1].split("|"))
        found[name[0]] = Row(tuple(beside), lost[0], again[0], again[-1])
    return found


def _words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def writes() -> set[str]:
    """Every public function of the package that writes to DynamoDB, as `module.function`: found by the names of what
    writes, wherever they are used."""
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "transact.py"]
    return {f"{path.stem}.{name}" for path in modules for name in _writing(path.read_text(encoding="utf-8"))}


def _writing(source: str) -> set[str]:
    """Public functions (and methods) that use one of WRITES, or a private function of the module that does."""
    functions = _outermost(ast.parse(source))
    uses = {one.name: {node.id for node in ast.walk(one) if isinstance(node, ast.Name)} for one in functions}
    writing = {name for name, used in uses.items() if used & set(WRITES)}
    while more := {name for name, used in uses.items() if used & {one for one in writing if one[0] == "_"}} - writing:
        writing |= more
    return {name for name in writing if name[0] != "_"}


def _outermost(scope: ast.Module | ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions and methods: one inside of another is part of that."""
    found: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node)
        elif isinstance(node, ast.ClassDef):
            found += _outermost(node)
    return found


def said(act: Act) -> str:
    """What came of it, in one word: what it returned (`ok` is nothing), or the name of what it raised.

    A death is not an outcome."""
    try:
        outcome = act()
    except Killed:
        raise
    except Exception as refusal:  # whatever it is, the table has to name it
        return type(refusal).__name__
    return "ok" if outcome is None else str(outcome)


@contextmanager
def answers_stay_lost(*, questions: bool) -> Iterator[None]:
    """Writes take effect, and no answer to one like the first ever comes; with `questions` none to any other write
    either, and none to whoever asks for an event."""
    first: list[str] = []

    def lose(model: Any, **_: Any) -> None:
        if model.name in OPERATIONS:
            first.append(model.name)
        if model.name in first[:1] or (questions and model.name in (*OPERATIONS, "GetItem")):
            raise ReadTimeoutError(endpoint_url="engine")

    with hook("after-call", lose):
        yield


@contextmanager
def dies(moment: str) -> Iterator[None]:
    """The process dies right before its first write, or right after that took effect."""

    def die(**_: Any) -> None:
        raise Killed

    with ExitStack() as hooks:
        for operation in OPERATIONS:
            hooks.enter_context(hook(f"{moment}-call.dynamodb.{operation}", die))
        yield


_runner: ContextVar[int] = ContextVar("_runner", default=0)
"""Which of two acts this is, also on a thread that it lends work to."""


def late(slow: Act, quick: Act) -> tuple[str, str]:
    """Both outcomes, when the quick one happens as a whole between what the slow one has read and what it writes."""
    arrived, go = threading.Event(), threading.Event()

    def wait(model: Any, **_: Any) -> None:
        if model.name in OPERATIONS and _runner.get() and not arrived.is_set():
            arrived.set()
            assert go.wait(WAIT_SECONDS)

    def run() -> str:
        _runner.set(1)
        try:
            return said(slow)
        finally:
            arrived.set()

    with hook("before-call", wait), ThreadPoolExecutor(1) as pool:
        pending = pool.submit(run)
        assert arrived.wait(WAIT_SECONDS)
        try:
            second = said(quick)
        finally:
            go.set()
        return pending.result(WAIT_SECONDS), second


def together(first: Act, second: Act) -> tuple[str, str]:
    """Both outcomes, when each has read before either writes, and they write at the same moment."""
    meeting = threading.Condition()
    coming, arrived = {1, 2}, set[int]()

    def wait(model: Any, **_: Any) -> None:
        number = _runner.get()
        if model.name in OPERATIONS and number and number not in arrived:
            with meeting:
                arrived.add(number)
                meeting.notify_all()
                assert meeting.wait_for(lambda: coming <= arrived, WAIT_SECONDS)

    def run(number: int, act: Act) -> str:
        _runner.set(number)
        try:
            return said(act)
        finally:
            with meeting:
                coming.discard(number)
                meeting.notify_all()

    with hook("before-call", wait), ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(run, 1, first), pool.submit(run, 2, second)]
        one, two = (one.result(2 * WAIT_SECONDS) for one in pending)
        return one, two


def items_of(store: Store, partitions: Collection[str], *, events: bool = True) -> Tables:
    """What is in these partitions of both tables. (The engine takes long to scan what a whole walk has left.)"""
    found = Tables([], [])
    both = (store.conversation_table, found.conversations), (store.outbox_table, found.outbox)
    for name, items in both if events else both[:1]:
        table = _resource(str(store.endpoint), store.region).Table(name)
        for partition in partitions:
            page = table.query(ConsistentRead=True, KeyConditionExpression=Key("pk").eq(partition))
            assert "LastEvaluatedKey" not in page
            items.extend(page["Items"])
    return found


@cache
def _resource(endpoint: str, region: str) -> Any:
    return boto3.resource("dynamodb", endpoint_url=endpoint, region_name=region)


def shape(tables: Tables, without: frozenset[str] = frozenset()) -> Counter[str]:
    """What the tables say, without what differs from one run of a scene to the next: ids, instants, and packed text."""
    items = [(name, item) for name in ("conversations", "outbox") for item in getattr(tables, name)]
    return Counter(
        f"{name} {_plain(item['sk'])} "
        + " ".join(
            sorted(f"{_plain(key)}={_plain(value)}" for key, value in item.items() if key not in {*_UNTOLD, *without})
        )
        for name, item in items
    )


_UNTOLD = ("pk", "sk", "payload", "version", "running_shard", "temporary_shard")
_ID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z?|\d{10,}|(?<=^V#)\d+")


def _plain(value: object) -> str:
    if isinstance(value, str | int | Decimal):
        return _TIME.sub("time", _ID.sub("id", str(value)))
    return type(value).__name__
