"""The numbers of a module that were decided and follow from nothing: the sizes of limits, and defaults.

Only a test that says such a number a second time could see it move by one. Whether a limit holds, and to the last,
tests ask by its name. 0 and 1 are never among these: none and the first are meanings. Nor is what a table says (the
status of a refusal), nor what a function computes with.
"""

import ast
from collections.abc import Iterator

_BOUNDS = {"ge", "gt", "le", "lt", "min_length", "max_length", "multiple_of"}


def decided_numbers(source: str) -> set[tuple[int, int]]:
    """Where they stand: the line, from 1, and the column, from 0, in characters."""
    lines = source.splitlines()
    numbers = (number for value in _values(ast.parse(source), in_function=False) for number in _sizes(value))
    return {(one.lineno, len(lines[one.lineno - 1].encode()[: one.col_offset].decode())) for one in numbers}


def _values(node: ast.AST, *, in_function: bool) -> Iterator[ast.expr]:
    """What constants and members have, what parameters have by default, and what bounds an annotated type."""
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and not in_function:
        yield node.value
    elif isinstance(node, ast.arguments):
        yield from (one for one in (*node.defaults, *node.kw_defaults) if one is not None)
    elif isinstance(node, ast.keyword) and node.arg in _BOUNDS:
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from _values(child, in_function=in_function or is_function)


def _sizes(value: ast.expr) -> Iterator[ast.Constant]:
    """The numbers that a value is made of: it is one, a calculation, several, or a time."""
    match value:
        case ast.Constant(value=int() | float() as number) if number not in (0, 1):
            yield value
        case ast.BinOp(left=left, right=right):
            yield from (*_sizes(left), *_sizes(right))
        case ast.UnaryOp(operand=operand):
            yield from _sizes(operand)
        case ast.Tuple(elts=several):
            yield from (number for one in several for number in _sizes(one))
        case ast.Call(func=ast.Name(id="timedelta"), args=args, keywords=keywords):
            yield from (number for one in (*args, *(named.value for named in keywords)) for number in _sizes(one))
