"""API keys of a tenant's services: made, listed and revoked by its administrator, and recognized at the edge."""

import hmac
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from minichat.domain import api_key
from minichat.domain.access_errors import ApiKeyNotFound
from minichat.domain.api_key import ApiKey, NewApiKey, PresentedKey
from minichat.domain.errors import ServiceUnavailable, Unauthenticated
from minichat.domain.identity import Call, ChatId
from minichat.events.payloads import ApiKeyChanged
from minichat.storage import api_keys, outbox
from minichat.storage.items import OutboxItem

NOTED_AGAIN = timedelta(minutes=5)
"""How exactly the last use of a key is known."""


class MadeKey(NamedTuple):
    """A new key, and its text, which nobody is told again."""

    key: ApiKey
    text: str


def create(call: Call, wanted: NewApiKey, random: bytes) -> MadeKey:
    """Makes a key of the caller's tenant from that many random bytes (`domain.api_key.RANDOM_BYTES`).

    Raises InvalidRequest, ServiceUnavailable (also in the one case of 2^80 where the id is taken).
    """
    wanted.checked(call.now)
    text = api_key.written(call.caller.tenant_id, random)
    presented = api_key.presented(text)
    key = ApiKey(
        tenant_id=call.caller.tenant_id,
        key_id=presented.key_id,
        name=wanted.name.strip(),
        account=wanted.account or presented.key_id,
        scopes=tuple(sorted(set(wanted.scopes))),
        created_at=call.now,
        created_by=call.caller.user_id,
        expires_at=wanted.expires_at,
    )
    if not api_keys.add(call, key, presented.digest, _event(call, "api_key_create", key)):
        raise ServiceUnavailable
    return MadeKey(key, text)


def listed(call: Call) -> list[ApiKey]:
    """All keys of the caller's tenant, the newest first; those that have expired for another 90 days.

    Raises ServiceUnavailable.
    """
    return _newest_first(api_keys.of_tenant(call.caller.tenant_id))


def revoke(call: Call, key_id: str) -> ApiKey:
    """Revokes a key of the caller's tenant for good; every process refuses it within five seconds.

    A stream that it began goes on to its end. Revoking again changes nothing.
    Raises ApiKeyNotFound, ServiceUnavailable.
    """
    if not api_key.is_id(key_id):
        raise ApiKeyNotFound
    while True:
        found = api_keys.read(call.caller.tenant_id, key_id)
        if found is None:
            raise ApiKeyNotFound
        if found.key.revoked_at is not None:
            return found.key
        if api_keys.revoke(call, key_id, _event(call, "api_key_revoke", found.key)):
            return replace(found.key, revoked_at=call.now, revoked_by=call.caller.user_id)


def verified(presented: PresentedKey, now: datetime) -> ApiKey:
    """The key that was presented, if it may be used, by one read.

    Only who knows the secret is told that the key was revoked or has expired.
    Raises Unauthenticated, ServiceUnavailable.
    """
    found = api_keys.read(presented.tenant_id, presented.key_id)
    if found is None:
        raise Unauthenticated("key")
    if not hmac.compare_digest(found.digest, presented.digest):
        raise Unauthenticated("signature")
    if found.key.revoked_at is not None:
        raise Unauthenticated("revoked", "The API key was revoked.")
    if not found.key.serves(now):
        raise Unauthenticated("expired", "The API key has expired.")
    return found.key


def is_noted(key: ApiKey, now: datetime) -> bool:
    """Whether its last use is known exactly enough."""
    return key.last_used_at is not None and now - key.last_used_at < NOTED_AGAIN


def note_use(key: ApiKey, now: datetime) -> None:
    """Notes that the key is used now, once in five minutes however many processes do.

    Raises ServiceUnavailable.
    """
    api_keys.used(key, now, before=now - NOTED_AGAIN)


def _newest_first(keys: Iterable[ApiKey]) -> list[ApiKey]:
    return sorted(keys, key=lambda key: (key.created_at, key.key_id), reverse=True)


def _event(call: Call, event_type: Literal["api_key_create", "api_key_revoke"], key: ApiKey) -> OutboxItem:
    event = ApiKeyChanged(
        event_type=event_type,
        tenant_id=key.tenant_id,
        timestamp=call.now,
        requester_type=call.caller.subject_type,
        trace_id=call.trace_id or None,
        actor_user_id=call.caller.user_id,
        api_key_id=key.key_id,
        name=key.name,
        account=key.account,
        scopes=list(key.scopes),
        expires_at=key.expires_at,
    )
    return outbox.item(call, ChatId("api_key"), event)
