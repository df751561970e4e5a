"""The provider entries in force, as this process knows them: the deployment's, and what tenants override.

The settings' entries count until some are published. Of a tenant that cannot be looked up nothing is guessed: the
deployment's entry would send what the tenant's users say to another account.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import TenantId
from minichat.observability import logger
from minichat.provider_entries import Provider, ProviderEntries, TenantProviders, overridden
from minichat.settings import Settings
from minichat.storage import keys, provider_versions
from minichat.storage.items import batch_get

OVERRIDES_KNOWN = 1000
"""Tenants whose overrides a process keeps, those of the last callers; one more is looked at again."""


@dataclass(frozen=True, slots=True)
class _TenantEntries:
    """What a process knows of a tenant, under which version of the deployment's, and since when."""

    version: int | None
    said: TenantProviders | None
    under: int | None
    entries: Mapping[str, Provider]
    looked_at: float


class ProvidersInForce:
    """The entries of every tenant that a process serves; any number of threads may share one."""

    def __init__(self, settings: Settings) -> None:
        self._given = settings
        self._settings = settings
        self._version: int | None = None
        self._tenants: OrderedDict[TenantId, _TenantEntries] = OrderedDict()
        self._taking = threading.RLock()
        self._looking: set[TenantId] = set()

    @property
    def settings(self) -> Settings:
        """The settings, with the deployment's entries that are in force as `providers`."""
        return self._settings

    def entries_of(self, tenant_id: TenantId) -> Mapping[str, Provider]:
        """The entries as they are for a tenant, at most `policy_refresh_seconds` old; reads the table when it is time.

        Raises ServiceUnavailable of a tenant of whom nothing is known, when the table does not answer.
        """
        known, moment = self._tenants.get(tenant_id), time.monotonic()
        # Of concurrent callers one looks again; the others go on with what is known.
        if known is not None and (tenant_id in self._looking or not self.is_due(tenant_id, moment)):
            return known.entries
        self._looking.add(tenant_id)
        try:
            return self.take(tenant_id, batch_get(self.pointers(tenant_id)), moment)
        except ServiceUnavailable:
            if known is None:
                raise
            logger.warning("the providers cannot be looked up", extra={"tenant_id": tenant_id})
            return known.entries
        finally:
            self._looking.discard(tenant_id)

    def is_due(self, tenant_id: TenantId, monotonic: float) -> bool:
        """Whether it is time to look again (seconds of a clock that only goes forward)."""
        known = self._tenants.get(tenant_id)
        return known is None or monotonic - known.looked_at >= self._given.policy_refresh_seconds

    @staticmethod
    def pointers(tenant_id: TenantId) -> list[keys.Key]:
        """The pointers that tell what is in force for a tenant: they may be read in anybody's batch."""
        return [keys.providers_in_force(None), keys.providers_in_force(tenant_id)]

    def take(self, tenant_id: TenantId, found: Mapping[keys.Key, keys.Raw], monotonic: float) -> Mapping[str, Provider]:
        """Takes what a batch found of `pointers`, read at that second; reads versions that are new to this process.

        Raises ServiceUnavailable; what was known stays then.
        """
        deployment, tenant = (provider_versions.versions_in(found.get(key)) for key in self.pointers(tenant_id))
        self._renew(deployment)
        known = self._tenants.get(tenant_id)
        if known is not None and known.version == tenant:
            said = known.said
        else:
            said = None if tenant is None else TenantProviders.model_validate_json(_document(tenant_id, tenant))
        with self._taking:
            version, providers = self._version, self._settings.providers
            if known is not None and known.version == tenant and known.under == version:
                entries = known.entries
            else:
                entries = _made(providers, said, tenant_id)
            self._tenants[tenant_id] = _TenantEntries(tenant, said, version, entries, monotonic)
            self._tenants.move_to_end(tenant_id)
            while len(self._tenants) > OVERRIDES_KNOWN:
                self._tenants.popitem(last=False)
        return entries

    def _renew(self, version: int | None) -> None:
        # Versions only go up: an older read must not bring an older version back.
        if version is None or version <= (self._version or 0):
            return
        providers = ProviderEntries.model_validate_json(_document(None, version)).providers
        with self._taking:
            if version > (self._version or 0):
                self._version, self._settings = version, self._given.model_copy(update={"providers": providers})


def _document(tenant_id: TenantId | None, version: int) -> bytes:
    published = provider_versions.read_providers(tenant_id, version)
    assert published is not None, "the pointer and its version are written together, and versions stay"
    return published.document


def _made(
    providers: Mapping[str, Provider], said: TenantProviders | None, tenant_id: TenantId
) -> Mapping[str, Provider]:
    overrides = said.overrides if said is not None else {}
    made: dict[str, Provider] = {}
    for name, entry in providers.items():
        if (override := overrides.get(name)) is None:
            made[name] = entry.of_tenant(tenant_id)
            continue
        try:
            made[name] = overridden(entry, override, tenant_id)
        except ValueError:
            # The entry has changed since, and no longer permits it. Without it the key would go elsewhere.
            logger.warning("an override is not permitted", extra={"tenant_id": tenant_id, "provider_id": name})
    return made
