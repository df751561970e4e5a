"""What a reader sees of a text."""

import re

# Unicode's categories Cc, Cf, Zl, Zp and Zs; then what is drawn as nothing although it counts as a letter, mark or
# symbol. Written out, since the API's document has it too, and must read the same in every dialect of expressions.
_BASIC = (
    r"\u0000-\u0020\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f"
    r"\u2028-\u202f\u205f-\u2064\u2066-\u206f\u3000\ufeff\ufff9-\ufffb"
    r"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0"
)
_BEYOND = (
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
    "\U000e0100-\U000e01ef"
)
VISIBLE = f"[^{_BASIC}]"
"""A regular expression that finds one character that a reader sees, in every dialect: beyond the basic plane, which not
all of them can tell apart, it takes each character for one."""

_visible = re.compile(f"[^{_BASIC}{_BEYOND}]")


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: no character, or white space, controls, joiners and fillers alone.

    >>> is_blank("\\u200b\\u3000"), is_blank("\\u200dx")
    (True, False)
    """
    return _visible.search(text) is None


def well_formed(text: str) -> str:
    """The text, unless it has half a character: JSON can escape that, and UTF-8 cannot carry it.

    Raises ValueError: we would not give back what came in.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text has an unpaired surrogate") from None
    return text
