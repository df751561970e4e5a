"""Idempotency keys: what a request made is remembered for 24 hours, so that its repetition finds it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from minichat.domain.errors import IdempotencyKeyConflict
from minichat.storage.attributes import NumberAttribute, UnicodeAttribute
from minichat.storage.conditions import any_of
from minichat.storage.items import ConversationItem
from minichat.storage.transact import Put, Refused

KEPT = timedelta(hours=24)
_KEY = "key"


@dataclass(frozen=True, slots=True)
class Once:
    """An idempotency key of the caller, and the fingerprint of the request it came with."""

    key: str
    fingerprint: str


class OnceItem(ConversationItem):
    """What an idempotency key made, as much as a repeated request is answered with."""

    fingerprint = UnicodeAttribute(attr_name="print")
    expires_at = NumberAttribute()


T = TypeVar("T", bound=OnceItem)


def of(key: str, *wanted: object) -> Once:
    """The key, with a fingerprint of everything that is wanted."""
    return Once(key, hashlib.sha256(repr(wanted).encode()).hexdigest()[:32])


def remember(made: OnceItem, once: Once, now: datetime) -> Put:
    """The write that stores what the key made; refused while something is stored already."""
    made.fingerprint, made.expires_at = once.fingerprint, int((now + KEPT).timestamp())
    is_new = OnceItem.pk.does_not_exist()
    # DynamoDB removes expired items late: an expired one counts as gone.
    is_over = OnceItem.expires_at < int(now.timestamp())
    return Put(_KEY, made, any_of(is_new, is_over))


def made_before(refused: Refused, kind: type[T], once: Once) -> T | None:
    """What the key made before, if that is why the transaction was refused.

    Raises IdempotencyKeyConflict when the key came with another request.
    """
    if _KEY not in refused.old:
        return None
    first = kind.from_raw_data(dict(refused.old[_KEY] or {}))
    if first.fingerprint != once.fingerprint:
        raise IdempotencyKeyConflict from refused
    return first
