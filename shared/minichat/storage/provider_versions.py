"""Versions of provider entries, the deployment's and tenants': immutable items, and a pointer to the one in force."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from minichat.domain.identity import TenantId
from minichat.domain.names import DEPLOYMENT
from minichat.events.payloads import ProvidersPublished
from minichat.storage import keys, outbox
from minichat.storage.attributes import BinaryAttribute, InstantAttribute, NumberAttribute, UnicodeAttribute
from minichat.storage.conditions import is_still
from minichat.storage.items import ConversationItem, batch_get, query
from minichat.storage.transact import Put, Refused, Update, commit

MAX_DOCUMENT_BYTES = 390_000
"""Compressed size of a version, which is one item: DynamoDB's 400 KB (AWS limit), less its other attributes."""
MAX_VERSION = 9_999_999_999
"""The highest that a key holds."""


class ProvidersItem(ConversationItem):
    """One version, as compressed JSON; never changed once written. It names where keys are, and holds none."""

    document = BinaryAttribute(legacy_encoding=False)
    published_at = InstantAttribute()
    published_by = UnicodeAttribute()


class ProvidersPointer(ConversationItem):
    """Which version is in force."""

    version = NumberAttribute()


class ProvidersMoved(Exception):
    """Somebody else has published meanwhile; `current` is in force."""

    def __init__(self, current: int) -> None:
        self.current = current
        super().__init__(str(current))


class ProvidersTooLarge(ValueError):
    """The entries do not fit one item, even compressed."""


@dataclass(frozen=True, slots=True)
class PublishedProviders:
    """A version: its JSON, and when and by whom it was published."""

    version: int
    document: bytes
    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Publication:
    """Who publishes, when, and the id of the event that says so; and the version that was changed into this one (0:
    there was none), where they say it."""

    by: str
    at: datetime
    token: str
    base: int | None = None


def versions_in(raw: keys.Raw | None) -> int | None:
    """The version that a pointer's item names; None where there is no item."""
    return None if raw is None else keys.number(raw, "version")


def current_providers(tenant_id: TenantId | None) -> int | None:
    """The version in force; None before the first was published. Without a tenant the deployment's.

    Raises ServiceUnavailable.
    """
    key = keys.providers_in_force(tenant_id)
    return versions_in(batch_get([key]).get(key))


def read_providers(tenant_id: TenantId | None, version: int) -> PublishedProviders | None:
    """One version.

    Raises ServiceUnavailable.
    """
    found = batch_get([keys.providers_version(tenant_id, version)])
    return next(map(_published, found.values()), None)


def providers_history(tenant_id: TenantId | None, before: int = MAX_VERSION + 1) -> Iterator[PublishedProviders]:
    """Every version below `before`, the newest first.

    Raises ServiceUnavailable.
    """
    newest, more = before - 1, True
    while more:
        first, last = keys.providers_version(tenant_id, 0), keys.providers_version(tenant_id, newest)
        found, more = query(first.pk, ProvidersItem.sk.between(first.sk, last.sk), limit=10, descending=True)
        for one in map(_published, found):
            newest = one.version - 1
            yield one


def publish_providers(
    tenant_id: TenantId | None, document: bytes, publication: Publication, *, previous: int | None
) -> int:
    """Stores a version after `previous`, puts it in force and audits it, in one transaction; returns its number.

    Raises ProvidersMoved when another is in force than `previous`, ProvidersTooLarge,
    ServiceUnavailable; what is in force is unchanged then.
    """
    stored = zlib.compress(document, 9)
    if len(stored) > MAX_DOCUMENT_BYTES:
        raise ProvidersTooLarge(f"The entries have {len(stored)} bytes, compressed; {MAX_DOCUMENT_BYTES} fit.")
    version = (previous or 0) + 1
    item = ProvidersItem(
        *keys.providers_version(tenant_id, version),
        document=stored,
        published_at=publication.at,
        published_by=publication.by,
    )
    event = ProvidersPublished(
        tenant_id=tenant_id or DEPLOYMENT,
        timestamp=publication.at,
        requester_type="system",
        version=version,
        previous_version=previous,
        published_by=publication.by,
    )
    pointer = ProvidersPointer(*keys.providers_in_force(tenant_id))
    try:
        commit(
            [
                Put("version", item, ProvidersItem.pk.does_not_exist()),
                Update(
                    "pointer",
                    pointer,
                    [ProvidersPointer.version.set(version)],
                    is_still(ProvidersPointer.version, previous),
                ),
                Put("event", outbox.of_tenant(event, publication.token)),
            ],
            token=publication.token,
        )
    except Refused as refused:
        raise ProvidersMoved(current_providers(tenant_id) or version) from refused
    return version


def _published(raw: keys.Raw) -> PublishedProviders:
    item = ProvidersItem.from_raw_data(dict(raw))
    version = int(keys.of(raw).sk.removeprefix("V#"))
    return PublishedProviders(version, zlib.decompress(item.document), item.published_at, item.published_by)
