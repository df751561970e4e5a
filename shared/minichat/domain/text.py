"""What a reader sees of a text."""

import unicodedata

# Characters that are drawn as nothing although Unicode counts them as letters, marks or symbols.
_UNDRAWN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: no character, or white space, controls, joiners and fillers alone.

    >>> is_blank("\\u200b\\u3000"), is_blank("\\u200dx")
    (True, False)
    """
    return all(
        unicodedata.category(character) in _INVISIBLE or character in _UNDRAWN or _selects_a_variant(character)
        for character in text
    )


def _selects_a_variant(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
