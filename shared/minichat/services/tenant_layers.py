"""Where the layers of tenants come from: the table, or a service of the customer's own (turns-and-quota 5)."""

import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from minichat import greenlets
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import TenantId
from minichat.domain.policy_layers import TenantLayer
from minichat.observability import logger
from minichat.provider_entries import TenantPolicies
from minichat.settings import Settings
from minichat.storage import policies

TENANTS_KNOWN = 1000
"""Tenants whose layers a process keeps, those of the last callers; one more is looked at again."""


@dataclass(frozen=True, slots=True)
class NewestLayer:
    """The version of the deployment's policy in the table, if any, a tenant's layer, if any, and whether the tenant is
    being erased."""

    deployment_version: int | None
    layer: TenantLayer | None
    stopped: bool = False


class TenantLayers(Protocol):
    """A source of tenants' layers."""

    def newest(self, tenant_id: TenantId, known: TenantLayer | None) -> NewestLayer:
        """What is in force for a tenant; the layer is `known` itself as long as that is the newest.

        Raises ServiceUnavailable.
        """


class LayersInTable:
    """Layers that were published; their pointer is read with the deployment's, in one batch."""

    def newest(self, tenant_id: TenantId, known: TenantLayer | None) -> NewestLayer:
        """As `TenantLayers.newest`."""
        place = policies.of_tenant(tenant_id)
        deployment, version, stopped = policies.pointers(tenant_id)
        if version is None:
            return NewestLayer(deployment, None, stopped)
        if known is not None and known.policy_version == version:
            return NewestLayer(deployment, known, stopped)
        published = policies.read(version, place)
        if published is None and (stopped or policies.pointers(tenant_id)[1] is None):
            # The layer is erased with its tenant, between the two reads.
            return NewestLayer(deployment, None, stopped)
        assert published is not None, "the pointer and its version are written together, and versions stay"
        return NewestLayer(deployment, published.policy, stopped)


@dataclass(frozen=True, slots=True)
class _Told:
    layer: TenantLayer | None
    at: float


class LayersOfService:
    """Layers that a service says. An answer counts for a while, and for longer while there is no other."""

    def __init__(self, entry: TenantPolicies) -> None:
        from minichat.providers.tenant_policies import TenantPolicyService  # noqa: PLC0415  few deployments have one

        self._service = TenantPolicyService(entry)
        self._cache_seconds = entry.cache_seconds
        self._told: OrderedDict[TenantId, _Told] = OrderedDict()

    def newest(self, tenant_id: TenantId, known: TenantLayer | None) -> NewestLayer:
        """As `TenantLayers.newest`."""
        pointers, layer = greenlets.together(partial(policies.pointers, tenant_id), partial(self._layer, tenant_id))
        return NewestLayer(pointers[0], known if layer == known else layer, pointers[2])

    def _layer(self, tenant_id: TenantId) -> TenantLayer | None:
        from minichat.providers.tenant_policies import NoLayerTold  # noqa: PLC0415  see above

        known, instant = self._told.get(tenant_id), time.monotonic()
        if known is not None and instant - known.at < self._cache_seconds:
            return known.layer
        try:
            told = _Told(self._service.layer(tenant_id), instant)
        except NoLayerTold as failure:
            logger.warning("a tenant's policy cannot be asked for", extra={"tenant_id": tenant_id, "why": str(failure)})
            if known is None:
                raise ServiceUnavailable from failure
            # The next question waits as long as after an answer: a service that is down is not asked by every call.
            told = _Told(known.layer, instant)
        self._told[tenant_id] = told
        self._told.move_to_end(tenant_id)
        while len(self._told) > TENANTS_KNOWN:
            self._told.popitem(last=False)
        return told.layer


def tenant_layers(settings: Settings) -> TenantLayers:
    """The source that these settings name."""
    return LayersOfService(settings.tenant_policies) if settings.tenant_policies.url else LayersInTable()
