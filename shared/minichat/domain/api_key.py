"""API keys: how one is written, and what is known of it once it was made.

    mck_<locator>_<secret>       in the letters of base 32, a-z and 2-7, so that one click selects it

The locator says whose key it is and which: one byte for the form of the tenant, the tenant (16 bytes of a UUID, or its
name in UTF-8), and the 10 bytes of the key's id. So the key of its item begins with the tenant, and one read finds it.
The secret is 32 random bytes and the CRC-32 of all that stands before: a typo, and a scanner's false find, show without
any read. Stored is a SHA-256 of the whole. A slow hash would protect what people choose; of 256 random bits there is
nothing to guess, and each request would pay for it.
"""

import base64
import hashlib
import re
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args
from uuid import UUID

from minichat.domain.actions import Action
from minichat.domain.errors import FieldError, InvalidRequest
from minichat.domain.identity import TenantId, UserId
from minichat.domain.names import LONGEST, is_uuid, said

PREFIX = "mck_"
ID_BYTES = 10
SECRET_BYTES = 32
RANDOM_BYTES = ID_BYTES + SECRET_BYTES
"""What a new key is made of."""
LONGEST_KEY = 1800
"""Characters of a key of a tenant whose name is long and of another script; a UUID's has 107."""
SERVICE = "mck:"
"""How the user ids of service accounts begin; no token can say such a subject."""
LONGEST_LIFE = timedelta(days=366)
LONGEST_NAME = 100
ACTIONS = frozenset(get_args(Action))

_FORM = re.compile(r"mck_([a-z2-7]{18,1720})_([a-z2-7]{58})", re.ASCII)
_ID = re.compile(r"[a-z2-7]{16}", re.ASCII)
_SAID, _UUID = b"\0", b"\1"
_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is known after it was made: everything but its secret.

    `account` is the service account that it acts for: keys of one account have the same chats and the same quota.
    """

    tenant_id: TenantId
    key_id: str
    name: str
    account: str
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: UserId
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: UserId | None = None

    @property
    def user_id(self) -> UserId:
        """The subject of the key's requests."""
        return UserId(f"{SERVICE}{self.account}")

    def serves(self, now: datetime) -> bool:
        """Whether it may be used at that instant."""
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """What a well-formed key says of itself; `digest` is what is stored of it."""

    tenant_id: TenantId
    key_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What an administrator asks for. Without an account, the key has one of its own, named by its id."""

    name: str
    scopes: tuple[str, ...]
    expires_at: datetime
    account: str | None = None

    def checked(self, now: datetime) -> None:
        """Raises InvalidRequest naming each field that is wrong."""
        unknown = sorted(set(self.scopes) - ACTIONS)
        problems = {
            "name": None
            if 0 < len(self.name.strip()) <= LONGEST_NAME
            else f"has to have 1 to {LONGEST_NAME} characters",
            "scopes": f"there is no action {unknown[0]!r}" if unknown else None if self.scopes else "none is given",
            "expires_at": None
            if now < self.expires_at <= now + LONGEST_LIFE
            else f"has to be within the next {LONGEST_LIFE.days} days",
            "account": None
            if self.account is None or _ACCOUNT.fullmatch(self.account)
            else "has to be 1 to 64 letters, digits, dots, dashes and underscores",
        }
        errors = [FieldError(field, problem) for field, problem in problems.items() if problem is not None]
        if errors:
            raise InvalidRequest(*errors)


def written(tenant_id: TenantId, random: bytes) -> str:
    """A new key of a tenant, made of that many random bytes (`RANDOM_BYTES`)."""
    assert len(random) == RANDOM_BYTES
    whose = _UUID + UUID(tenant_id).bytes if is_uuid(tenant_id) else _SAID + tenant_id.encode()
    before = f"{PREFIX}{_base32(whose + random[:ID_BYTES])}_"
    secret = random[ID_BYTES:]
    return before + _base32(secret + _checksum(before, secret))


def presented(text: str) -> PresentedKey:
    """What a key says of itself.

    Raises ValueError for a text that is none, or has a typo.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("is no API key")
    locator, secret = _bytes(match[1]), _bytes(match[2])
    if secret[SECRET_BYTES:] != _checksum(text[: match.start(2)], secret[:SECRET_BYTES]):
        raise ValueError("has a typo: its checksum is wrong")
    form, whose, key_id = locator[:1], locator[1:-ID_BYTES], locator[-ID_BYTES:]
    if form == _UUID and len(whose) == len(UUID(int=0).bytes):
        tenant = str(UUID(bytes=whose))
    elif form == _SAID and 0 < len(whose) <= LONGEST * 4:
        tenant = whose.decode()
    else:
        raise ValueError("names no tenant")
    return PresentedKey(TenantId(said(tenant)), _base32(key_id), hashlib.sha256(text.encode()).digest())


def is_id(text: str) -> bool:
    """Whether a text can be the id of a key."""
    return _ID.fullmatch(text) is not None


def _checksum(before: str, secret: bytes) -> bytes:
    return zlib.crc32(before.encode() + secret).to_bytes(4, "big")


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _bytes(text: str) -> bytes:
    """Raises ValueError for a text that `_base32` never makes."""
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if _base32(data) != text:
        raise ValueError("is no API key")
    return data
