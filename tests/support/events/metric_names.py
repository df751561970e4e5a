"""Every metric that the code names, read from its source: what alarms, the dashboard and the documents may speak of."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]


@cache
def emitted() -> dict[str, set[str]]:
    """The dimensions of each metric by its name."""
    found: dict[str, set[str]] = {}
    for name, dimensions in _calls():
        assert found.setdefault(name, dimensions) == dimensions, f"{name} is not always split by the same"
    return found


def _calls() -> Iterator[tuple[str, set[str]]]:
    for source in [*(ROOT / "shared").rglob("*.py"), *(ROOT / "functions").rglob("*.py")]:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id not in {"count", "observe"} or source.name == "observability.py":
                continue
            name = node.args[0]
            if not isinstance(name, ast.Constant):
                # `quota.count` has this name within its module, and no name of a metric to say.
                assert source.name == "quota.py", f"{source.name}:{node.lineno}: a metric's name is written out"
                continue
            dimensions = {keyword.arg for keyword in node.keywords}
            assert None not in dimensions, f"{source.name}:{node.lineno}: a metric's dimensions are written out"
            yield str(name.value), {str(dimension) for dimension in dimensions}
