"""Mutants of modules, as cosmic-ray makes them: each the module's text with one thing changed."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

OPERATORS = (
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_Gt", "LtE_GtE", "Gt_Lt", "GtE_LtE")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_FloorDiv", "FloorDiv_Mul", "Mod_Add")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("BitAnd_BitOr", "LShift_RShift", "RShift_LShift")),
    *("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "AddNot"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop"),
)
"""Those whose mutants mean something else. Others make modules that do not load (`|` of types into `+`, exceptions of
unknown names), or one mutant a second time (`==` into each of six)."""
_DECIDED = re.compile(r"(_?[A-Z][A-Z\d_, ]*|\w+: (int|float)) = (?![01]$)[\d_.,* ]+")
"""A line that gives a limit or a default its size. It was decided and follows from nothing, so only a test that says
the number a second time could see it move by one. Whether a limit holds, and to the last, tests ask by its name."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one change: the line's number, the line before and after it, and the whole text after it."""

    path: str
    number: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it however the module around it moves."""
        return self.path, self.before, self.after


def sample(paths: Sequence[Path], root: Path, size: int, seed: int) -> list[Mutant]:
    """`size` of all mutants of these modules, in a random order that the seed decides; all when there are fewer."""
    sources = {path: path.read_text("utf-8") for path in sorted(paths)}
    every = [(path, name, n) for path, source in sources.items() for name, n in _places(source)]
    random.Random(seed).shuffle(every)
    made: list[Mutant] = []
    for path, name, occurrence in every:
        if len(made) == size:
            break
        source = sources[path]
        mutated = mutate_code(source, get_operator(f"core/{name}")(), occurrence)
        mutant = _mutant(path.relative_to(root).as_posix(), source, mutated)
        if mutant is not None and not (name == "NumberReplacer" and _DECIDED.fullmatch(mutant.before)):
            made.append(mutant)
    return made


def _places(source: str) -> Iterator[tuple[str, int]]:
    """Each operator with the number of each place where it can change something."""
    nodes = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        for occurrence in range(sum(len(list(operator.mutation_positions(node))) for node in nodes)):
            yield name, occurrence


def _mutant(path: str, source: str, mutated: str | None) -> Mutant | None:
    old, new = source.splitlines(), (mutated or source).splitlines()
    changed = [number for number, (was, is_) in enumerate(zip(old, new, strict=False)) if was != is_]
    if not changed:
        return None
    first = changed[0]
    if old[first].lstrip().startswith("@dataclass"):
        return None  # what a class cannot do otherwise (`slots`, `frozen`) is not there for anybody to see
    return Mutant(path, first + 1, old[first].strip(), new[first].strip(), mutated or source)
