"""How large a message may be: what one transaction stores, and what one response of Lambda tells again."""

import json

MESSAGE_MAX_BYTES = 3_000_000
"""A message and all else of its transaction must stay below the 4 MB that one DynamoDB transaction may carry."""

TOLD_MAX_BYTES = 4_700_000
"""Of a text as it is read again (`told_bytes`): a response of Lambda has at most 6,291,556 bytes, and the message's
attachments come with the text, whose thumbnails alone may have 1.3 MB."""
LONGEST_ESCAPE = len(r"\\u0001")
"""Bytes of the character that takes most."""


def fits_a_message(text: str) -> bool:
    """Whether a text of any author can be stored as a message, and read again."""
    return len(text.encode()) <= MESSAGE_MAX_BYTES and can_be_told(text)


def can_be_told(text: str) -> bool:
    """Whether one response of Lambda has room for a message with this text, and all that comes with it."""
    return len(text) * LONGEST_ESCAPE <= TOLD_MAX_BYTES or told_bytes(text) <= TOLD_MAX_BYTES


def told_bytes(value: object) -> int:
    """Bytes of a text, or anything else, in a response of Lambda: JSON, whose body is JSON again, as a text.

    >>> told_bytes("a"), told_bytes("\\n"), told_bytes('"')
    (5, 7, 8)
    """
    once = json.dumps(value, ensure_ascii=False)
    return len(once.encode()) + once.count('"') + once.count("\\")
