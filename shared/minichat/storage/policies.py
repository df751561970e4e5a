"""Versions of the policy's layers: immutable items, and a pointer to the one in force (turns-and-quota 5).

The deployment's, each tenant's and each user's are published in one way. A user's pointer also holds what it points
to, because every send of the user reads it.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from minichat.domain.identity import TenantId, UserId
from minichat.domain.policy import MAX_VERSION, Policy
from minichat.domain.policy_layers import MAX_TENANT_BYTES, Document, TenantLayer, UserLayer
from minichat.events.payloads import PolicyPublished
from minichat.storage import keys, outbox
from minichat.storage.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    InstantAttribute,
    NumberAttribute,
    UnicodeAttribute,
)
from minichat.storage.conditions import any_of
from minichat.storage.items import ConversationItem, batch_get, query
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import Put, Refused, Update, commit

D = TypeVar("D", Policy, TenantLayer, UserLayer)

MAX_STORED_BYTES = 390_000
"""Compressed size of a version, which is one item: DynamoDB's 400 KB (AWS limit), less its other attributes."""

MAX_BYTES = 3_000_000
"""Size of a version's JSON: its models must fit one Lambda answer (6,291,556 bytes), where quotes count twice."""

MAX_USER_BYTES = 3_000
"""Size of the JSON of a user's layer: with its item below 4 KB, a send reads it for one unit."""


class PolicyItem(ConversationItem):
    """One version of a layer, as compressed JSON; never changed once written."""

    document = BinaryAttribute(legacy_encoding=False)
    published_at = InstantAttribute()
    published_by = UnicodeAttribute()
    withdrawn = BooleanAttribute(null=True)


class PolicyPointer(ConversationItem):
    """Which version is in force; a user's also says what that is, and whether the user is being erased."""

    version = NumberAttribute(null=True)
    document = BinaryAttribute(null=True, legacy_encoding=False)
    erased_by = UnicodeAttribute(attr_name="erase", null=True)


class VersionTaken(Exception):
    """This version, or a later one, is already published: versions only go up, and never change."""

    def __init__(self, wanted: int, current: int) -> None:
        self.wanted = wanted
        self.current = current
        super().__init__(f"{wanted} cannot follow {current}")


class PolicyTooLarge(ValueError):
    """The policy does not fit one item, even compressed."""


@dataclass(frozen=True, slots=True)
class Place(Generic[D]):
    """Where the versions of one layer are: the deployment's, a tenant's or a user's."""

    kind: type[D]
    tenant_id: TenantId | None = None
    user_id: UserId | None = None

    @property
    def layer(self) -> Literal["deployment", "tenant", "user"]:
        """Its name."""
        if self.tenant_id is None:
            return "deployment"
        return "tenant" if self.user_id is None else "user"

    @property
    def in_force(self) -> Key:
        """Where the pointer is."""
        if self.tenant_id is None:
            return keys.POLICY_IN_FORCE
        if self.user_id is None:
            return keys.tenant_policy(self.tenant_id)
        return keys.user_policy(self.tenant_id, self.user_id)

    def version(self, version: int) -> Key:
        """Where a version is."""
        if self.tenant_id is None:
            return keys.policy_version(version)
        if self.user_id is None:
            return keys.tenant_policy_version(self.tenant_id, version)
        return keys.user_policy_version(self.tenant_id, self.user_id, version)


DEPLOYMENT = Place(Policy)


def of_tenant(tenant_id: TenantId) -> Place[TenantLayer]:
    """The place of a tenant's layer."""
    return Place(TenantLayer, tenant_id)


def of_user(tenant_id: TenantId, user_id: UserId) -> Place[UserLayer]:
    """The place of a user's layer."""
    return Place(UserLayer, tenant_id, user_id)


@dataclass(frozen=True, slots=True)
class Published(Generic[D]):
    """A version, and when and by whom it was published; a withdrawn layer says nothing."""

    policy: D
    at: datetime
    by: str
    version: int
    withdrawn: bool = False


def current_version(place: Place[Any] = DEPLOYMENT) -> int | None:
    """The version in force; None before the first was published.

    Raises ServiceUnavailable.
    """
    (version,) = current_versions(place)
    return version


def current_versions(*places: Place[Any]) -> list[int | None]:
    """The version in force of each layer, read at once.

    Raises ServiceUnavailable.
    """
    found = batch_get(place.in_force for place in places)
    return [_version_of(found.get(place.in_force)) for place in places]


def pointers(tenant_id: TenantId) -> tuple[int | None, int | None, bool]:
    """The versions in force of the deployment's policy and of a tenant's layer, and whether the tenant is being erased:
    read at once.

    Raises ServiceUnavailable.
    """
    layer, stopped = of_tenant(tenant_id).in_force, keys.stopped(tenant_id)
    found = batch_get([DEPLOYMENT.in_force, layer, stopped])
    return _version_of(found.get(DEPLOYMENT.in_force)), _version_of(found.get(layer)), stopped in found


def _version_of(raw: Raw | None) -> int | None:
    return None if raw is None else keys.number(raw, PolicyPointer.version.attr_name) or None


def read(version: int, place: Place[D]) -> Published[D] | None:
    """One version.

    Raises ServiceUnavailable.
    """
    raw = batch_get([place.version(version)])
    return next((_published(PolicyItem.from_raw_data(dict(item)), place) for item in raw.values()), None)


def user_layer(raw: Raw | None) -> UserLayer | None:
    """A user's layer, of their stored pointer; a withdrawn one has its version, and says nothing else."""
    if raw is None or _version_of(raw) is None:
        return None
    item = PolicyPointer.from_raw_data(dict(raw))
    layer = UserLayer() if item.document is None else UserLayer.model_validate_json(zlib.decompress(item.document))
    return layer.model_copy(update={"policy_version": int(item.version)})


def stop(tenant_id: TenantId, user_id: UserId, erasure_id: str) -> Update:
    """The write after which a user's turns, chats and files are refused, unless they are being erased already."""
    pointer = PolicyPointer(*keys.user_policy(tenant_id, user_id))
    return Update(
        "limits", pointer, [PolicyPointer.erased_by.set(erasure_id)], PolicyPointer.erased_by.does_not_exist()
    )


def is_stopped(raw: Raw | None) -> bool:
    """Whether a user's stored pointer says that they are being erased."""
    return raw is not None and PolicyPointer.erased_by.attr_name in raw


def layer_of(tenant_id: TenantId, user_id: UserId) -> UserLayer | None:
    """A user's layer in force.

    Raises ServiceUnavailable.
    """
    key = keys.user_policy(tenant_id, user_id)
    return user_layer(batch_get([key]).get(key))


def history(place: Place[D], before: int = MAX_VERSION + 1) -> Iterator[Published[D]]:
    """Every version of a layer below `before`, the newest first.

    Raises ServiceUnavailable.
    """
    newest, more = before - 1, True
    while more:
        first, last = place.version(0), place.version(newest)
        found, more = query(first.pk, PolicyItem.sk.between(first.sk, last.sk), limit=10, descending=True)
        for raw in found:
            published = _published(PolicyItem.from_raw_data(dict(raw)), place)
            newest = published.version - 1
            yield published


def stored_form(document: Document) -> bytes:
    """A version as its item holds it.

    Raises PolicyTooLarge.
    """
    plain = document.model_dump_json(exclude_unset=True).encode()
    match document:
        case Policy() if len(plain) > MAX_BYTES:
            raise PolicyTooLarge(
                f"The policy has {len(plain)} bytes; its models fit one answer if it has at most {MAX_BYTES}."
            )
        case TenantLayer() if len(plain) > MAX_TENANT_BYTES:
            raise PolicyTooLarge(f"The tenant's layer has {len(plain)} bytes; it may have {MAX_TENANT_BYTES}.")
        case UserLayer() if len(plain) > MAX_USER_BYTES:
            raise PolicyTooLarge(f"The user's layer has {len(plain)} bytes; it may have {MAX_USER_BYTES}.")
    packed = zlib.compress(plain, 9)
    if len(packed) > MAX_STORED_BYTES:
        raise PolicyTooLarge(f"The policy has {len(packed)} bytes, compressed; {MAX_STORED_BYTES} fit.")
    return packed


def publish(document: Document | None, place: Place[Any] = DEPLOYMENT, *, at: datetime, by: str, token: str) -> int:
    """Stores a version of a layer, puts it in force and audits it, in one transaction; `token` is the event's id.

    The version: the document's, or the one after the last. None withdraws a tenant's or a user's layer, which
    inherits everything again; that is a version too.
    Raises VersionTaken, PolicyTooLarge, ServiceUnavailable; the version in force is unchanged then.
    """
    said: Document = place.kind() if document is None else document
    packed = stored_form(said)
    previous = current_version(place)
    version = said.policy_version or (previous or 0) + 1
    item = PolicyItem(
        *place.version(version),
        document=packed,
        published_at=at,
        published_by=by,
        withdrawn=True if document is None else None,
    )
    event = PolicyPublished(
        tenant_id=place.tenant_id or "deployment",
        timestamp=at,
        requester_type="system",
        layer=place.layer,
        user_id=place.user_id,
        policy_version=version,
        previous_version=previous,
        published_by=by,
        withdrawn=document is None,
    )
    actions = [PolicyPointer.version.set(version)]
    if place.user_id is not None:
        actions.append(PolicyPointer.document.set(packed))
    is_first = PolicyPointer.version.does_not_exist()
    is_newer = PolicyPointer.version < version
    try:
        commit(
            [
                Put("version", item, PolicyItem.pk.does_not_exist()),
                Update("pointer", PolicyPointer(*place.in_force), actions, any_of(is_first, is_newer)),
                Put("event", outbox.of_policy(event, token)),
            ],
            token=token,
        )
    except Refused as refused:
        raise VersionTaken(version, current_version(place) or version) from refused
    return version


def _published(item: PolicyItem, place: Place[D]) -> Published[D]:
    policy = place.kind.model_validate_json(zlib.decompress(item.document))
    version = int(item.sk.rpartition("#")[2])
    if policy.policy_version is None:
        policy = policy.model_copy(update={"policy_version": version})
    return Published(policy, item.published_at, item.published_by, version, withdrawn=bool(item.withdrawn))
