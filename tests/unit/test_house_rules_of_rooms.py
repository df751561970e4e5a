"""House rules about what stands where, each with the leak that taught it; `# allowed: …` on the line says why not."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator

from tests.unit.test_house_rules import ROOT, nodes, places, product

DYNAMODB_TYPES = {"S", "N", "M", "L", "B", "BOOL", "NULL", "SS", "NS", "BS"}
PART_OF_A_KEY = re.compile(r"(^|#)[A-Z]+#|#[A-Z]+$")
NAMED_BY_OTHERS = {"Meta"}
"""Names that a library gives: pynamodb."""
LINES = 6


def _outside_storage() -> Iterator[tuple[str, ast.AST]]:
    return ((name, node) for name, node in nodes() if not name.startswith("shared/minichat/storage/"))


def test_only_storage_reads_dynamodbs_json() -> None:
    # Five modules took images apart by hand, `["sk"]["S"]`: what an attribute is called was written down eight times.
    found: dict[str, list[ast.AST]] = defaultdict(list)
    for name, node in _outside_storage():
        match node:
            case ast.Subscript(slice=ast.Constant(value=kind)) if kind in DYNAMODB_TYPES:
                found[name].append(node)
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=kind), *_]) if (
                kind in DYNAMODB_TYPES
            ):
                found[name].append(node)
            case ast.Dict(keys=[ast.Constant(value=kind)]) if kind in DYNAMODB_TYPES:
                found[name].append(node)
    assert [place for name, those in found.items() for place in places(name, iter(those))] == []


def test_only_storage_takes_keys_apart() -> None:
    # `removeprefix("T#").split("#C#")` stood in twelve places, and a key had a maker and no reader.
    found = [
        place
        for name, node in _outside_storage()
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if len(node.value) < 40 and PART_OF_A_KEY.search(node.value)
        for place in places(name, iter([node]))
    ]
    assert found == []


def test_each_clause_of_a_condition_has_a_name() -> None:
    # `condition &= …` grew line by line: which race a clause prevents stood elsewhere, or nowhere.
    found: dict[str, list[ast.AST]] = defaultdict(list)
    for name, node in nodes():
        if not name.startswith("shared/minichat/storage/") or name.endswith("/conditions.py"):
            continue
        match node:
            case ast.Call(func=ast.Name(id="all_of" | "any_of"), args=clauses):
                found[name] += [clause for clause in clauses if not _is_named(clause)]
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr(), left=left, right=right):
                found[name] += [side for side in (left, right) if _is_clause(side)]
            case ast.AugAssign(op=ast.BitAnd() | ast.BitOr(), value=value) if _is_clause(value):
                found[name].append(value)
    assert [place for name, those in found.items() for place in places(name, iter(those))] == []


def _is_named(clause: ast.AST) -> bool:
    """A name, several in a list, or what a function of ours gives."""
    return isinstance(clause, ast.Name | ast.Starred) or (isinstance(clause, ast.Call) and not _is_clause(clause))


def _is_clause(node: ast.AST) -> bool:
    """Whether it asks an item for something: compared, or whether it is there."""
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(node, ast.Compare) or (
        isinstance(called, ast.Attribute) and called.attr in {"exists", "does_not_exist", "is_in", "between"}
    )


def test_a_class_has_a_name_of_its_own() -> None:
    # `Outcome` meant three things, `Answer` seven: an import had to be followed before a line could be read.
    named = defaultdict(set)
    for name, node in nodes():
        if isinstance(node, ast.ClassDef) and node.name not in NAMED_BY_OTHERS and places(name, iter([node])):
            named[node.name].add(name)
    assert {name: modules for name, modules in named.items() if len(modules) > 1} == {}


def test_no_logic_stands_twice() -> None:
    # What an audit event says of its request was written out for six events, and once it was forgotten.
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for name in product():
        lines = _logic(name)
        for start in range(len(lines) - LINES + 1):
            block = lines[start : start + LINES]
            seen[tuple(text for _, text in block)].add(f"{name}:{block[0][0]}")
    assert {where for where in map(tuple, map(sorted, seen.values())) if len(where) > 1} == set()


def _logic(name: str) -> list[tuple[int, str]]:
    """The lines of a module with their numbers: without comments, docstrings, imports, and what is
    declared: members and signatures."""
    source, tree = (ROOT / name).read_text("utf-8"), product()[name]
    passed: set[int] = set()
    for node in ast.walk(tree):
        within = node.body if isinstance(node, ast.ClassDef) else []
        declared = [one for one in within if isinstance(one, ast.AnnAssign | ast.Assign)]
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for one in [*declared, *([node] if is_text or isinstance(node, ast.Import | ast.ImportFrom) else [])]:
            assert isinstance(one, ast.stmt)
            passed |= set(range(one.lineno, (one.end_lineno or one.lineno) + 1))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            passed |= set(range(node.lineno, node.body[0].lineno))
    texts = dict(enumerate((line.strip() for line in source.splitlines()), start=1))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            texts[token.start[0]] = texts[token.start[0]].removesuffix(token.string).strip()
    return [(number, text) for number, text in texts.items() if text and number not in passed]
