"""What adapters read from a provider's JSON: nothing in it is believed to have the right type."""

import json
from dataclasses import replace
from typing import Any

from minichat.domain.policy import MAX_TOKENS
from minichat.domain.usage import Usage

UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)
"""What reading an event raises when it is not what the provider's reference promises."""


def document(data: str | bytes) -> dict[str, Any]:
    """The JSON object that this is. Raises one of UNREADABLE."""
    found = json.loads(data)
    if not isinstance(found, dict):
        raise TypeError("not a JSON object")
    return found


def at(found: Any, *path: str) -> Any:
    """What is at the end of a path of keys; None when the path breaks off."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def usage_of(found: Any, **paths: tuple[str, ...]) -> Usage:
    """What the provider counted, each number of `Usage` by its path.

    Numbers that cannot be tokens make it unknown: nobody pays for them.
    """
    counted = {name: at(found, *path) or 0 for name, path in paths.items()}
    if all(type(tokens) is int and 0 <= tokens <= MAX_TOKENS for tokens in counted.values()):
        return Usage(**counted)
    return Usage()


def with_cache_in_input(apart: Usage) -> Usage:
    """Usage whose input includes the cache's tokens, of a provider that counts them apart."""
    together = apart.input_tokens + apart.cache_read_input_tokens + apart.cache_write_input_tokens
    return replace(apart, input_tokens=together) if together <= MAX_TOKENS else Usage()


def identifier(found: Any) -> str | None:
    """The provider's id of its answer, if it is one."""
    return found if isinstance(found, str) else None


def whole_characters(text: str) -> str:
    """The text with surrogate pairs joined and lone halves replaced: JSON can carry them, UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Characters:
    """The text of one answer, whose deltas are cut anywhere: the end of one may be half a character.

    JSON escapes what is beyond the basic plane as two halves. A first half is held back until its other one comes, and
    replaced when anything else does.
    """

    def __init__(self) -> None:
        self._half = ""

    def of(self, delta: str) -> str:
        """The characters that this delta completes; none when it is but a half."""
        text = self._half + delta
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return whole_characters(text.removesuffix(self._half))

    def rest(self) -> str:
        """What stands for a half whose other one never came; empty when none is held."""
        half, self._half = self._half, ""
        return whole_characters(half)
