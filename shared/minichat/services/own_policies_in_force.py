"""Which tenants have policies of their own, as this process knows it, and how new versions get known."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minichat import greenlets
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import TenantId
from minichat.observability import logger
from minichat.services.own_policies import OwnPolicies, parsed
from minichat.storage import authorizations, keys
from minichat.storage.items import batch_get
from minichat.storage.keys import Key, Raw

MAX_TENANTS = 4096
"""Tenants that a process knows: beyond that the one that was looked at first is looked at again."""


@dataclass(frozen=True, slots=True)
class _KnownTenant:
    version: int | None
    policies: OwnPolicies | None
    looked_at: float


class OwnPoliciesInForce:
    """The tenants' own policies: looked at again every few seconds, read and parsed once per version.

    While the store does not answer, the last known ones stay in force; where none are known, nothing is decided.
    """

    def __init__(self, refresh_seconds: float) -> None:
        self._refresh_seconds = refresh_seconds
        self._known: dict[TenantId, _KnownTenant] = {}

    async def of(self, tenant_id: TenantId) -> OwnPolicies | None:
        """The tenant's own policies; None when it has none. Raises ServiceUnavailable."""
        known = self._known.get(tenant_id)
        if known is None or time.monotonic() - known.looked_at >= self._refresh_seconds:
            await greenlets.run(self._look, tenant_id)
        return self._known[tenant_id].policies

    def keys(self, tenant_id: TenantId) -> list[Key]:
        """What `take` wants to know of a tenant: for whoever reads other things at the same time."""
        return [keys.authorization_in_force(tenant_id)]

    def take(self, tenants: Iterable[TenantId], found: Mapping[Key, Raw]) -> None:
        """Puts in force what was found under `keys`. Reads only versions that are new to this process.

        Raises ServiceUnavailable when such a version cannot be read, or not be evaluated.
        """
        for tenant_id in tenants:
            version = authorizations.version_of(found.get(keys.authorization_in_force(tenant_id)))
            known = self._known.pop(tenant_id, None)
            try:
                policies = known.policies if known is not None and known.version == version else None
                if version is not None and policies is None:
                    policies = _read(tenant_id, version)
            except ServiceUnavailable:
                # Decided by the older ones now, it would be permitted what the newer ones forbid.
                logger.warning("a tenant's own policies cannot be read", extra={"version": version})
                raise
            while len(self._known) >= MAX_TENANTS:
                del self._known[next(iter(self._known))]
            self._known[tenant_id] = _KnownTenant(version, policies, time.monotonic())

    def _look(self, tenant_id: TenantId) -> None:
        known = self._known.get(tenant_id)
        try:
            found = batch_get(self.keys(tenant_id))
        except ServiceUnavailable:
            if known is None:
                raise
            logger.warning("a tenant's own policies cannot be looked up", extra={"version_in_use": known.version})
            self._known[tenant_id] = _KnownTenant(known.version, known.policies, time.monotonic())
            return
        self.take([tenant_id], found)


def _read(tenant_id: TenantId, version: int) -> OwnPolicies | None:
    own = authorizations.read(tenant_id, version)
    assert own is not None, "the pointer and its version are written together, and versions stay"
    return parsed(version, own.text) if own.text.strip() else None
