"""Mutants of modules, as cosmic-ray makes them: each the module's text with one thing changed."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

from tests.mutants.decided import decided_numbers

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
    """`size` of all mutants of these modules, in an order that the seed decides; all when there are fewer.

    Each mutant has a rank of its own, so that a change to one line leaves the others drawn that were.
    """
    sources = {path: path.read_text("utf-8") for path in paths}
    every = [
        (_rank(f"{seed} {path.relative_to(root).as_posix()} {name} {line}"), path, name, occurrence)
        for path, source in sources.items()
        for name, occurrence, line in _places(source)
    ]
    made: list[Mutant] = []
    for _, path, name, occurrence in sorted(every):
        if len(made) == size:
            break
        source = sources[path]
        mutated = mutate_code(source, get_operator(f"core/{name}")(), occurrence)
        mutant = _mutant(path.relative_to(root).as_posix(), source, mutated)
        if mutant is not None:
            made.append(mutant)
    return made


def _rank(told: str) -> bytes:
    return hashlib.sha256(told.encode()).digest()


def _places(source: str) -> Iterator[tuple[str, int, str]]:
    """Each operator with the number of each place where it can change something, and what names the place: its line,
    and which one it is of those that the operator can change in lines that say the same."""
    nodes, lines, decided = list(ast_nodes(get_ast(source))), source.splitlines(), decided_numbers(source)
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
        seen = Counter[str]()
        for occurrence, (number, column) in enumerate(starts):
            line = lines[number - 1].strip()
            seen[line] += 1
            if not (name == "NumberReplacer" and (number, column) in decided):
                yield name, occurrence, f"{seen[line]} {line}"


def _mutant(path: str, source: str, mutated: str | None) -> Mutant | None:
    old, new = source.splitlines(), (mutated or source).splitlines()
    changed = [number for number, (was, is_) in enumerate(zip(old, new, strict=False)) if was != is_]
    if not changed:
        return None
    first = changed[0]
    if old[first].lstrip().startswith(("@dataclass", "if TYPE_CHECKING:")):
        # What a class cannot do otherwise (`slots`, `frozen`), and what type checkers alone import: nobody sees it.
        return None
    return Mutant(path, first + 1, old[first].strip(), new[first].strip(), mutated or source)
