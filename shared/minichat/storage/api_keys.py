"""API keys: one item each, under its tenant; the digest of the key is in it, never the key."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from minichat.domain.api_key import ApiKey
from minichat.domain.identity import Call, TenantId, UserId
from minichat.storage import keys
from minichat.storage.attributes import BinaryAttribute, InstantAttribute, UnicodeAttribute
from minichat.storage.conditions import all_of, at_most
from minichat.storage.items import ExpiringItem, OutboxItem, batch_get, between
from minichat.storage.keys import Raw
from minichat.storage.transact import Put, Update, Write, try_commit, update_one

KEPT = timedelta(days=90)
"""How long a key that has expired is still listed."""
PAGE = 100


class ApiKeyItem(ExpiringItem):
    """A key: `ends_at` is when it expires, `expires_at` when its item does."""

    digest = BinaryAttribute(legacy_encoding=False)
    name = UnicodeAttribute()
    account = UnicodeAttribute()
    scopes = UnicodeAttribute()
    created_at = InstantAttribute()
    created_by = UnicodeAttribute()
    ends_at = InstantAttribute()
    last_used_at = InstantAttribute(null=True)
    revoked_at = InstantAttribute(null=True)
    revoked_by = UnicodeAttribute(null=True)


class StoredKey(NamedTuple):
    """A key, and the digest that the presented one must have."""

    key: ApiKey
    digest: bytes


def read(tenant_id: TenantId, key_id: str) -> StoredKey | None:
    """The key of that id, in one consistent read; None when there is none.

    Raises ServiceUnavailable.
    """
    where = keys.api_key(tenant_id, key_id)
    raw = batch_get([where]).get(where)
    return None if raw is None else _stored(raw)


def of_tenant(tenant_id: TenantId) -> Iterator[ApiKey]:
    """Every key of a tenant, also those that were revoked or have expired, by their ids.

    Raises ServiceUnavailable.
    """
    found = between(keys.api_key(tenant_id, "").pk, "0", "~", page=PAGE)
    return (_stored(raw).key for raw in found)


def add(call: Call, key: ApiKey, digest: bytes, event: OutboxItem) -> bool:
    """Stores a new key and publishes the event; False when its id is taken.

    Raises ServiceUnavailable.
    """
    item = ApiKeyItem(
        *keys.api_key(key.tenant_id, key.key_id),
        digest=digest,
        name=key.name,
        account=key.account,
        scopes=" ".join(key.scopes),
        created_at=key.created_at,
        created_by=key.created_by,
        ends_at=key.expires_at,
        expires_at=int((key.expires_at + KEPT).timestamp()),
    )
    absent = ApiKeyItem.pk.does_not_exist()
    return try_commit([Put("key", item, absent), Put("event", event)], token=call.new_id(call.now), op="api_key")


def revoke(call: Call, key_id: str, event: OutboxItem) -> bool:
    """Revokes a key of the caller's tenant and publishes the event; False when it is gone, or was revoked before.

    Raises ServiceUnavailable.
    """
    actions = [ApiKeyItem.revoked_at.set(call.now), ApiKeyItem.revoked_by.set(call.caller.user_id)]
    is_there, unrevoked = ApiKeyItem.pk.exists(), ApiKeyItem.revoked_at.does_not_exist()
    item = ApiKeyItem(*keys.api_key(call.caller.tenant_id, key_id))
    writes: list[Write] = [Update("key", item, actions, all_of(is_there, unrevoked)), Put("event", event)]
    return try_commit(writes, token=call.new_id(call.now), op="api_key")


def used(key: ApiKey, at: datetime, *, before: datetime) -> bool:
    """Notes that a key was used, unless a use after `before` is noted already; False then.

    Raises ServiceUnavailable.
    """
    # An item that expired meanwhile must not come back.
    is_there = ApiKeyItem.pk.exists()
    not_noted = at_most(ApiKeyItem.last_used_at, before)
    item = ApiKeyItem(*keys.api_key(key.tenant_id, key.key_id))
    return update_one(item, [ApiKeyItem.last_used_at.set(at)], all_of(is_there, not_noted), op="api_key")


def _stored(raw: Raw) -> StoredKey:
    item = ApiKeyItem.from_raw_data(dict(raw))
    key = ApiKey(
        tenant_id=keys.tenant_of(item.pk),
        key_id=item.sk,
        name=item.name,
        account=item.account,
        scopes=tuple(item.scopes.split(" ")),
        created_at=item.created_at,
        created_by=UserId(item.created_by),
        expires_at=item.ends_at,
        last_used_at=item.last_used_at,
        revoked_at=item.revoked_at,
        revoked_by=UserId(item.revoked_by) if item.revoked_by is not None else None,
    )
    return StoredKey(key, item.digest)
