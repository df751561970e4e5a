"""Reads fields of a provider's JSON, none of which is trusted to have the right type."""

import json
from dataclasses import replace
from typing import Any

from minichat.domain.policy import MAX_TOKENS
from minichat.domain.usage import Usage

UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)
"""What reading an event raises when it differs from the provider's reference."""


_DECODER = json.JSONDecoder()


def document(data: str | bytes) -> dict[str, Any]:
    """Parses a JSON object. Raises one of UNREADABLE."""
    found = _DECODER.decode(data) if isinstance(data, str) else json.loads(data)
    if not isinstance(found, dict):
        raise TypeError("not a JSON object")
    return found


def at(found: Any, *path: str) -> Any:
    """The value at the end of a path of keys; None when the path breaks off."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def usage_of(found: Any, **paths: tuple[str, ...]) -> Usage:
    """The usage that the provider counted; `paths` has the path of each number.

    If a number cannot be a token count, the usage is unknown: nobody pays for it.
    """
    counted = {name: at(found, *path) or 0 for name, path in paths.items()}
    if all(type(tokens) is int and 0 <= tokens <= MAX_TOKENS for tokens in counted.values()):
        return Usage(**counted)
    return Usage()


def with_cache_in_input(apart: Usage) -> Usage:
    """Usage whose input includes the cached tokens, for a provider that counts them separately."""
    together = apart.input_tokens + apart.cache_read_input_tokens + apart.cache_write_input_tokens
    return replace(apart, input_tokens=together) if together <= MAX_TOKENS else Usage()


def identifier(found: Any) -> str | None:
    """The provider's id of its answer, if it is one."""
    return found if isinstance(found, str) else None


def whole_characters(text: str) -> str:
    """The text with surrogate pairs joined and lone halves replaced: JSON can carry them, UTF-8 cannot."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Characters:
    """The text of one answer, whose deltas are cut anywhere: one may end in half a character.

    JSON escapes characters beyond the basic plane as two halves. A first half is held back until the second comes, and
    replaced if anything else comes.
    """

    def __init__(self) -> None:
        self._half = ""

    def of(self, delta: str) -> str:
        """The characters that this delta completes; none when it is only a half."""
        text = self._half + delta
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return whole_characters(text.removesuffix(self._half))

    def rest(self) -> str:
        """The replacement of a half whose other one never came; empty when none is held."""
        half, self._half = self._half, ""
        return whole_characters(half)
