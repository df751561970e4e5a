"""An answer's citations, read from a provider's JSON. Unreadable ones are left out: they must not cost the answer."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from minichat.domain.citations import SNIPPET_MAX, TITLE_MAX, URL_MAX, Cited, Source, Span
from minichat.providers.json_fields import whole_characters

MAX_CITED = 1000
"""Most sources kept of an answer; they may include repetitions, which do not count in the end."""

_TARGET_MAX = URL_MAX + 1
"""One more than allowed, so that a target that was cut is still recognized as too long."""


def cited(source: Source, target: Any, *, title: Any = None, text: Any = None, span: Span | None = None) -> list[Cited]:
    """A list of the one source; empty when its address or id cannot be read."""
    if not (isinstance(target, str) and target):
        return []
    words = _words(target, _TARGET_MAX), _words(title, TITLE_MAX), _words(text, SNIPPET_MAX)
    return [Cited(source, *words, span)]


def span_of(start: Any, end: Any) -> Span | None:
    """The span between two offsets, if both are integers; it may lie outside the answer."""
    return (start, end) if type(start) is int and type(end) is int else None


def listed(found: Any) -> list[Any]:
    """The entries of a list; none when it is not a list."""
    return found if isinstance(found, list) else []


class Block:
    """Sources of an API that cites by block: each belongs to the text of its block."""

    def __init__(self) -> None:
        self._begins = self._ends = 0
        self._found: list[Cited] = []
        self._of_ended = 0

    def text(self, text: str) -> None:
        """Adds to the block's text."""
        self._ends += len(text)

    def cites(self, sources: Iterable[Cited]) -> None:
        """Adds sources of the block, which may come before its text."""
        self._found += list(sources)[: MAX_CITED - len(self._found)]

    def end(self) -> None:
        """The next text begins another block."""
        self._found[self._of_ended :] = self._spanned()
        self._of_ended, self._begins = len(self._found), self._ends

    def all(self) -> tuple[Cited, ...]:
        """Every source so far."""
        return (*self._found[: self._of_ended], *self._spanned())

    def _spanned(self) -> Iterator[Cited]:
        span = (self._begins, self._ends) if self._ends > self._begins else None
        return (replace(one, span=span) for one in self._found[self._of_ended :])


def _words(found: Any, most: int) -> str:
    return whole_characters(found[:most]) if isinstance(found, str) else ""
