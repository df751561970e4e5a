"""Races on a busy machine."""

from collections.abc import Callable
from typing import TypeVar

from minichat.domain.errors import ServiceUnavailable

T = TypeVar("T")


def until_answered(act: Callable[[], T]) -> T:
    """What an act comes to, which is asked for again where the others kept it from its turn for all of its patience."""
    while True:
        try:
            return act()
        except ServiceUnavailable:
            continue
