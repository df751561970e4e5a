"""A tenant's own policies (Cedar): immutable versions, and a pointer to the one in force."""

from dataclasses import dataclass
from datetime import datetime

from minichat.domain.identity import TenantId
from minichat.events.access import AuthorizationPublished
from minichat.storage import keys, outbox
from minichat.storage.attributes import InstantAttribute, NumberAttribute, UnicodeAttribute
from minichat.storage.conditions import is_still
from minichat.storage.items import ConversationItem, batch_get
from minichat.storage.keys import Raw
from minichat.storage.transact import Put, Refused, Update, commit


class AuthorizationItem(ConversationItem):
    """One version; never changed once written. An empty text means none."""

    policies = UnicodeAttribute()
    published_at = InstantAttribute()
    published_by = UnicodeAttribute()


class AuthorizationPointer(ConversationItem):
    """Which version is in force."""

    version = NumberAttribute(null=True)


class AuthorizationMoved(Exception):
    """Another version was published since `base` was read; the one in force is `current`."""

    def __init__(self, current: int | None) -> None:
        self.current = current
        super().__init__(str(current))


@dataclass(frozen=True, slots=True)
class OwnText:
    """A version of a tenant's own policies, and when and by whom it was published."""

    version: int
    text: str
    at: datetime
    by: str


def version_of(raw: Raw | None) -> int | None:
    """The version that the pointer names; None without one."""
    return None if raw is None else int(AuthorizationPointer.from_raw_data(dict(raw)).version)


def current_version(tenant_id: TenantId) -> int | None:
    """The version in force; None before the first. Raises ServiceUnavailable."""
    key = keys.authorization_in_force(tenant_id)
    return version_of(batch_get([key]).get(key))


def read(tenant_id: TenantId, version: int) -> OwnText | None:
    """One version. Raises ServiceUnavailable."""
    raw = next(iter(batch_get([keys.authorization_version(tenant_id, version)]).values()), None)
    if raw is None:
        return None
    item = AuthorizationItem.from_raw_data(dict(raw))
    return OwnText(version, item.policies, item.published_at, item.published_by)


def publish(tenant_id: TenantId, own: OwnText, base: int | None, event: AuthorizationPublished, *, token: str) -> None:
    """Stores the version, puts it in force and audits it, in one transaction; `token` is the event's id.

    Raises AuthorizationMoved when another than `base` is in force, ServiceUnavailable; nothing is written then.
    """
    item = AuthorizationItem(
        *keys.authorization_version(tenant_id, own.version),
        policies=own.text,
        published_at=own.at,
        published_by=own.by,
    )
    pointer = AuthorizationPointer(*keys.authorization_in_force(tenant_id))
    try:
        commit(
            [
                Put("version", item, AuthorizationItem.pk.does_not_exist()),
                Update(
                    "pointer",
                    pointer,
                    [AuthorizationPointer.version.set(own.version)],
                    is_still(AuthorizationPointer.version, base),
                ),
                Put("event", outbox.of_tenant(event, token)),
            ],
            token=token,
            op="publish_authorization",
        )
    except Refused as refused:
        raise AuthorizationMoved(current_version(tenant_id)) from refused
