"""How the names that issuers give to tenants and users become parts of keys, and come back.

A name is any text up to 255 characters; a part of a key, of an object's name or of a message's group must be of a safe
alphabet, or two names could meet in one key: user `b` of tenant `a#U#x`, and user `x#U#b` of tenant `a`. Everything
that puts a name there asks `in_key`, everything that reads one there `from_key`; all else has names as they were said.
"""

import re
from functools import lru_cache
from urllib.parse import quote, unquote

LONGEST = 255
"""Characters of a tenant's or a subject's name: OpenID Connect Core 2 allows no more in `sub`."""
LONGEST_IN_KEY = 900
"""Characters of a name in a key. Two of them fit DynamoDB's 2,048 bytes of a partition key, one its 1,024 bytes of a
sort key and S3's of an object's name, with what we put around them. Only names of other scripts come near."""
DEPLOYMENT = "deployment"
"""What events of no tenant say instead of one: no tenant may have this name."""

_UUID = re.compile(
    r"(?:urn:uuid:)?(\{)?([0-9a-f]{8})(-)?([0-9a-f]{4})(?(3)-)([0-9a-f]{4})(?(3)-)([0-9a-f]{4})(?(3)-)([0-9a-f]{12})(?(1)\})",
    re.IGNORECASE | re.ASCII,
)
_PACKED = "~"
"""How a packed name begins; a quoted one has no such character."""
_CODE_POINTS = 0x110000
_DIGITS = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"


def said(name: str) -> str:
    """The name of a tenant or a user as everything here uses it: as the issuer said it, but one spelling per UUID.

    A UUID is in lower case with dashes, whichever of its usual forms it came in: earlier versions stored it so. Raises
    ValueError, saying why, for a name that is empty, too long, reserved, or no Unicode text.
    """
    if not 0 < len(name) <= LONGEST:
        raise ValueError(f"has {len(name)} characters instead of 1 to {LONGEST}")
    if name == DEPLOYMENT:
        raise ValueError(f"is {DEPLOYMENT!r}, which stands for no tenant")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError("has half a character (a lone surrogate)")
    match = _UUID.fullmatch(name)
    return name if match is None else "-".join(match.group(2, 4, 5, 6, 7)).lower()


def is_uuid(name: str) -> bool:
    """Whether a name is a UUID as `said` spells it."""
    match = _UUID.fullmatch(name)
    return match is not None and "-".join(match.group(2, 4, 5, 6, 7)).lower() == name


@lru_cache(maxsize=1024)
def in_key(name: str) -> str:
    """A name as a part of a key: letters, digits and `_`, `-`, `.`, all else percent-encoded; other names differ.

    A name that would be longer than 900 characters is packed instead: `~` and its code points as one number.
    """
    quoted = quote(name, safe="").replace("~", "%7E")
    if quoted.startswith("."):  # no `.` and `..` in paths
        quoted = f"%2E{quoted[1:]}"
    return quoted if len(quoted) <= LONGEST_IN_KEY else _PACKED + _packed(name)


def in_path(name: str) -> str:
    """A name as a part of a path of secrets, which may hold letters, digits and `_-.` only; other names differ.

    A name of these that does not begin with `_` or `.` is as it is; else `_` comes first, and each other character as
    `_` and two hexadecimal digits per byte.
    """
    part = in_key(name)
    if part.startswith(_PACKED):
        return f"_.{part[1:]}"
    if "%" not in part and not part.startswith("_"):
        return part
    return "_" + part.replace("_", "%5F").replace("%", "_")


def from_key(part: str) -> str:
    """The name that `in_key` put into a key.

    Raises ValueError for what it never makes.
    """
    name = _unpacked(part[1:]) if part.startswith(_PACKED) else unquote(part, errors="strict")
    if not name or in_key(name) != part:
        raise ValueError(f"{part!r} is no name in a key")
    return name


def _packed(name: str) -> str:
    number = 0
    for character in name:
        number = number * _CODE_POINTS + ord(character) + 1
    digits = []
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _unpacked(digits: str) -> str:
    number = 0
    for digit in digits:
        number = number * len(_DIGITS) + _DIGITS.index(digit)
    characters = []
    while number:
        number, point = divmod(number - 1, _CODE_POINTS)
        characters.append(chr(point))
    return "".join(reversed(characters))
