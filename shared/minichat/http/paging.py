"""Cursors that cannot be altered or carried elsewhere, and which of them a page has (contract 1).

A cursor is a position, the direction of travel, and the order and filter it belongs to, signed together with its scope:
the caller and the list. The scope is in the signature only, so a cursor of another caller or list does not verify.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from minichat.domain.errors import FieldError, InvalidCursor

T = TypeVar("T")

SIGNATURE_BYTES = 16
MAX_CHARACTERS = 16_384


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page begins, exclusive, and in which direction of the list it lies."""

    position: str
    backward: bool = False
    order: str = ""
    filter: str = ""


@dataclass(frozen=True, slots=True)
class CutPage(Generic[T]):
    """The rows of a page in the list's order, and the positions from which its neighbours begin."""

    rows: Sequence[T]
    next_position: str | None
    prev_position: str | None


class CursorCodec:
    """Signs and verifies the cursors of one deployment."""

    def __init__(self, secret: str) -> None:
        """Raises ValueError for an empty secret: anybody could make cursors."""
        if not secret:
            raise ValueError("cursor_secret must not be empty")
        self._secret = secret.encode()

    def encode(self, cursor: Cursor, scope: str) -> str:
        """The cursor as text that is safe in a URL."""
        body = json.dumps([cursor.position, cursor.backward, cursor.order, cursor.filter]).encode()
        return base64.urlsafe_b64encode(self._sign(body, scope) + body).decode().rstrip("=")

    def decode(self, text: str, scope: str) -> Cursor:
        """The cursor in a text that this deployment signed for this scope.

        Raises InvalidCursor for every other text.
        """
        try:
            padded = text[:MAX_CHARACTERS].encode("ascii") + b"=" * (-len(text[:MAX_CHARACTERS]) % 4)
            signed = base64.b64decode(padded, altchars=b"-_", validate=True)
        except ValueError:
            raise _altered() from None
        signature, body = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
        # One text per cursor: spare bits in the last character must match too.
        same_text = base64.urlsafe_b64encode(signed).decode().rstrip("=") == text
        if not same_text or not hmac.compare_digest(signature, self._sign(body, scope)):
            raise _altered()
        position, backward, order, filter_ = json.loads(body)
        return Cursor(position, backward, order, filter_)

    def _sign(self, body: bytes, scope: str) -> bytes:
        named = len(scope.encode()).to_bytes(4, "big") + scope.encode() + body
        return hmac.digest(self._secret, named, hashlib.sha256)[:SIGNATURE_BYTES]


def fits(cursor: Cursor, *, order: str | None, filter_: str | None) -> Cursor:
    """The cursor, if the query's order and filter (None: not given) are those that the cursor was made with.

    Raises InvalidCursor with code ORDER_MISMATCH or FILTER_MISMATCH.
    """
    if order is not None and order != cursor.order:
        raise InvalidCursor(FieldError("cursor", "The cursor belongs to another $orderby.", "ORDER_MISMATCH"))
    if filter_ is not None and filter_ != cursor.filter:
        raise InvalidCursor(FieldError("cursor", "The cursor belongs to another $filter.", "FILTER_MISMATCH"))
    return cursor


def cut(travelled: Sequence[T], limit: int, cursor: Cursor | None, position: Callable[[T], str]) -> CutPage[T]:
    """The page of up to `limit` rows out of up to `limit + 1` that were read, and its neighbours.

    Reading forward, a next page exists when a row is left over, and a previous one when there was a cursor.
    Reading backward it is the other way round, and the rows are reversed into the list's order.
    """
    rows, more = list(travelled[:limit]), len(travelled) > limit
    backward = cursor is not None and cursor.backward
    if backward:
        rows.reverse()
    if not rows:
        return CutPage(rows, None, None)
    has_next = backward or more
    has_prev = more if backward else cursor is not None
    return CutPage(rows, position(rows[-1]) if has_next else None, position(rows[0]) if has_prev else None)


def _altered() -> InvalidCursor:
    return InvalidCursor(FieldError("cursor", "The cursor was altered or belongs to another list.", "INVALID_CURSOR"))
