"""Items that this version cannot read, as after a rollback: a pass over many items reports each, and goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from minichat.storage.keys import Key, Raw

T = TypeVar("T")

PROBLEMS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""An attribute is missing, of another type or out of its range, or has a value unknown to this version."""
_REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Where such an item is, and what is wrong with it."""

    key: Key
    reason: str


def read(raw: Raw, reader: Callable[[Raw], T]) -> T | Unreadable:
    """What the reader makes of a stored item, or why it cannot."""
    try:
        return reader(raw)
    except PROBLEMS as problem:
        reason = f"{type(problem).__name__}: {problem}"
        return Unreadable(Key(raw["pk"]["S"], raw["sk"]["S"]), reason[:_REASON_CHARACTERS])
