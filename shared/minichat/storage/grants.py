"""Grants: who of support may read in a tenant, until when, and why."""

from dataclasses import dataclass
from datetime import datetime

from minichat.domain.identity import TenantId, UserId
from minichat.events.access import GrantChanged
from minichat.storage import keys, outbox
from minichat.storage.attributes import InstantAttribute, NumberAttribute, UnicodeAttribute
from minichat.storage.items import ConversationItem, between
from minichat.storage.transact import Delete, Put, Refused, commit

PAGE = 100


class GrantItem(ConversationItem):
    """A grant. DynamoDB removes it some time after its end."""

    user_id = UnicodeAttribute()
    until = InstantAttribute()
    reason = UnicodeAttribute()
    granted_by = UnicodeAttribute()
    granted_at = InstantAttribute()
    expires_at = NumberAttribute()


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave for a user of support to read what is the tenant's until an instant, for a reason."""

    tenant_id: TenantId
    grant_id: str
    user_id: UserId
    until: datetime
    reason: str
    granted_by: UserId
    granted_at: datetime


def of_tenant(tenant_id: TenantId) -> list[Grant]:
    """The tenant's grants, the oldest first; some may have ended. Raises ServiceUnavailable."""
    pk = keys.grant(tenant_id, "").pk
    return [_grant(tenant_id, GrantItem.from_raw_data(dict(raw))) for raw in between(pk, "0", "~", page=PAGE)]


def create(grant: Grant, event: GrantChanged, *, token: str) -> None:
    """Stores a new grant and its event. Raises ServiceUnavailable."""
    item = GrantItem(
        *keys.grant(grant.tenant_id, grant.grant_id),
        user_id=grant.user_id,
        until=grant.until,
        reason=grant.reason,
        granted_by=grant.granted_by,
        granted_at=grant.granted_at,
        expires_at=int(grant.until.timestamp()),
    )
    commit([Put("grant", item), Put("event", outbox.of_tenant(event, token))], token=token, op="grant")


def delete(grant: Grant, event: GrantChanged, *, token: str) -> bool:
    """Removes a grant; False when it is gone. Raises ServiceUnavailable."""
    item = GrantItem(*keys.grant(grant.tenant_id, grant.grant_id))
    writes: list[Delete | Put] = [
        Delete("grant", item, GrantItem.pk.exists()),
        Put("event", outbox.of_tenant(event, token)),
    ]
    try:
        commit(writes, token=token, op="grant")
    except Refused:
        return False
    return True


def _grant(tenant_id: TenantId, item: GrantItem) -> Grant:
    return Grant(
        tenant_id,
        item.sk,
        UserId(item.user_id),
        item.until,
        item.reason,
        UserId(item.granted_by),
        item.granted_at,
    )
