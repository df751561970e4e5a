"""Sizes of items as DynamoDB bills them ("DynamoDB item sizes and formats", "Read and write operations")."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from minichat.storage.transact import Put, Write

WRITE_UNIT_BYTES = 1024
_OF: dict[str, Any] = {
    "S": lambda value: len(value.encode()),
    "N": lambda value: math.ceil(len(value.lstrip("-")) / 2) + 1,
    "B": len,
}


def size_of(item: Mapping[str, Any]) -> int:
    """Bytes of an item: its names, and its values."""
    total = 0
    for name, typed in item.items():
        ((kind, value),) = typed.items()
        total += len(name) + _OF.get(kind, lambda _: 1)(value)
    return total


def least_units(writes: Iterable[Write]) -> int:
    """Write units of a transaction, as far as its writes tell: two per started KB of an item that is put, and two for
    each other, whose item is not known. Entries of indexes come on top."""
    return sum(
        2 * math.ceil(size_of(write.item.serialize()) / WRITE_UNIT_BYTES) if isinstance(write, Put) else 2
        for write in writes
    )
