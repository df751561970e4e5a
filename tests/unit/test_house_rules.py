"""House rules, each with the leak that taught it. A line that must break one says why: `# allowed: …`."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from minichat.domain.failure_codes import ERROR_MESSAGES
from minichat.domain.policy import Policy
from minichat.http.problems import STATUS
from minichat.settings import Settings

ROOT = Path(__file__).parents[2]
ALLOWED = "# allowed: "
LONGEST_FUNCTION, LONGEST_MODULE, LONGEST_REPEAT = 50, 400, 5
WHOLE = {"ApiParams"}
"""Parts that are read as a whole, whatever members they have: they are sent as they are."""


@cache
def product() -> Mapping[str, ast.Module]:
    """Every module that is deployed, parsed, by its path."""
    sources = [path for folder in ("shared/minichat", "functions", "layers") for path in (ROOT / folder).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in sorted(sources)}


def places(name: str, nodes: Iterator[ast.AST]) -> list[str]:
    """Where these nodes of a module are, but for lines that say why they may be there."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    numbers = sorted({number for node in nodes if (number := getattr(node, "lineno", 0))})
    return [f"{name}:{number}: {lines[number - 1].strip()}" for number in numbers if ALLOWED not in lines[number - 1]]


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Every node of the product with its module."""
    return [(name, node) for name, tree in product().items() for node in ast.walk(tree)]


def test_every_setting_and_every_member_of_the_policy_is_read() -> None:
    # A setting was accepted, checked against its bounds, and read by nobody: who set it believed that it did something.
    # Names are compared, so one that two groups share counts for both.
    read = {node.attr for _, node in nodes() if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    read |= {
        node.value
        for name, node in nodes()
        if name == "shared/minichat/domain/policy.py"  # which reads some by `getattr`
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    unread = [
        f"{model.__name__}.{name}"
        for model in _models(Settings) | _models(Policy)
        for name, field in model.model_fields.items()
        if model.__name__ not in WHOLE and name not in read
        if not (field.description or "").startswith("for readers")
    ]
    assert unread == []


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found, left = {model}, [field.annotation for field in model.model_fields.values()]
    while left:
        one: Any = left.pop()
        left += get_args(one)
        if isinstance(one, type) and issubclass(one, BaseModel):
            found |= _models(one)
    return found


def test_every_refusal_is_raised_somewhere() -> None:
    # `rate_limited` had a class, a row in the audit trail and tests, and nothing of ours ever refused so.
    raised = {ast.unparse(node.func).rpartition(".")[2] for _, node in nodes() if isinstance(node, ast.Call)}
    raised |= {
        ast.unparse(node.exc).rpartition(".")[2] for _, node in nodes() if isinstance(node, ast.Raise) and node.exc
    }
    assert {error.__name__ for error in STATUS} - raised == set()


def test_every_word_of_a_closed_set_is_said_somewhere() -> None:
    # An audit event declared the decision `rate`, its schema promised it to others, and nobody wrote it.
    said: dict[str, int] = defaultdict(int)
    for _, node in nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            said[node.value] += 1
    declared = [
        f"{name}: {word.value}"
        for name, node in nodes()
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"
        for word in (node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice])
        if isinstance(word, ast.Constant) and isinstance(word.value, str) and said[word.value] == 1
        if places(name, iter([node]))
    ]
    assert declared == []
    assert [code for code in ERROR_MESSAGES if said[code] == 1] == []


def test_every_event_is_made_somewhere() -> None:
    # `events/payloads.py` is a promise to consumers of others: an event that nobody makes is one that is not kept.
    made = {
        ast.unparse(node.func).rpartition(".")[2]
        for name, node in nodes()
        if isinstance(node, ast.Call) and not name.endswith("local/event_schemas.py")
    }
    payloads = product()["shared/minichat/events/payloads.py"]
    events = {
        node.name
        for node in payloads.body
        if isinstance(node, ast.ClassDef) and "event_type: Literal" in ast.unparse(node)
    }
    assert len(events) > 10
    assert events - made == set()


def test_functions_and_modules_stay_small() -> None:
    # What is longer has a noun in it that nobody named yet.
    functions = [
        f"{name}:{node.lineno} {node.name}"
        for name, node in nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ]
    modules = [name for name in product() if len((ROOT / name).read_text("utf-8").splitlines()) > LONGEST_MODULE]
    assert functions + modules == []


def test_whatever_may_run_on_the_event_loop_pauses_there() -> None:
    # A pause of a repetition stopped the loop, and with it every stream of its process (docs/decisions/0015).
    found = [
        place
        for name, tree in product().items()
        if name.startswith(("shared/minichat/storage/", "shared/minichat/services/"))
        for place in places(
            name,
            (
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.sleep", "asyncio.to_thread")
            ),
        )
    ]
    assert found == []
