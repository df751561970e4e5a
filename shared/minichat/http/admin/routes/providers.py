"""Entries of providers, and what tenants override. Keys are named and never sent: neither here nor from here."""

import json
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query

from minichat.domain import access_errors, errors
from minichat.domain.access_errors import ProvidersNotFound, TenantNotFound
from minichat.domain.identity import TenantId
from minichat.http.acting import acts
from minichat.http.admin import bodies
from minichat.http.admin.access import Before, Limit, OperatorCall, TenantCall
from minichat.http.admin.views import ProvidersVersions, ProvidersVersionView, PublishedView
from minichat.http.deps import Authenticated, TheApp, TheCall
from minichat.http.problems import documented
from minichat.provider_entries import ProviderEntries, TenantProviders
from minichat.services import provider_config
from minichat.storage import provider_versions
from minichat.storage.provider_versions import MAX_VERSION, PublishedProviders

router = APIRouter(tags=["providers"], route_class=Authenticated)
Document = Annotated[dict[str, Any], Body()]
Base = Annotated[
    int | None,
    Query(ge=0, le=MAX_VERSION, description="The version that was changed into this one; 0: there was none."),
]
Version = Annotated[int, Path(ge=1, le=MAX_VERSION)]
_REFUSALS = (errors.Forbidden, TenantNotFound)


async def _of_deployment(call: OperatorCall) -> None:
    del call  # it is refused to others


async def _of_tenant(call: TenantCall) -> TenantId:
    return call.caller.tenant_id


def _serve(path: str, whose: Any, about: dict[str, Any]) -> None:
    """Adds the operations below `path`; `about` describes a document."""
    of, read, found = Depends(whose), [acts("provider:read")], documented(*_REFUSALS, ProvidersNotFound)

    @router.get(path, dependencies=read, responses=found)
    def get_providers(tenant_id: Annotated[TenantId | None, of]) -> ProvidersVersionView:
        """The version in force; before the first, the settings' entries are."""
        return _version(provider_config.show(tenant_id))

    @router.get(f"{path}/versions", dependencies=read, responses=documented(*_REFUSALS))
    def list_providers_versions(
        tenant_id: Annotated[TenantId | None, of], limit: Limit = 20, before: Before = MAX_VERSION + 1
    ) -> ProvidersVersions:
        """The newest versions, the newest first."""
        newest = provider_versions.providers_history(tenant_id, min(before, MAX_VERSION + 1))
        return ProvidersVersions(items=[_version(one) for one in islice(newest, limit)])

    @router.get(f"{path}/versions/{{version}}", dependencies=read, responses=found)
    def get_providers_version(tenant_id: Annotated[TenantId | None, of], version: Version) -> ProvidersVersionView:
        """One version."""
        return _version(provider_config.show(tenant_id, version))

    @router.post(
        f"{path}/validate", status_code=204, dependencies=read, responses=documented(*_REFUSALS), openapi_extra=about
    )
    def validate_providers(tenant_id: Annotated[TenantId | None, of], app: TheApp, document: Document) -> None:
        """Checks a document; what is wrong is named by its path, and nothing is published."""
        provider_config.validate(document, tenant_id, app.settings)

    @router.post(
        f"{path}/versions",
        status_code=201,
        dependencies=[acts("provider:write")],
        responses=documented(*_REFUSALS, access_errors.ProvidersConflict),
        openapi_extra=about,
    )
    def publish_providers(
        tenant_id: Annotated[TenantId | None, of], call: TheCall, app: TheApp, document: Document, base: Base = None
    ) -> PublishedView:
        """Puts a document in force. Keys are named: of a tenant, only those in its own folder.

        With `base`, only if that version is still in force: of two who changed the same one, the later is refused.
        """
        publication = provider_versions.Publication(call.caller.user_id, call.now, call.new_id(call.now), base)
        try:
            version = provider_config.publish(document, tenant_id, app.settings, publication)
        except provider_versions.ProvidersMoved:
            raise access_errors.ProvidersConflict from None
        return PublishedView(version=version)


def _version(found: PublishedProviders | None) -> ProvidersVersionView:
    if found is None:
        raise ProvidersNotFound
    return ProvidersVersionView(
        version=found.version, published_at=found.at, published_by=found.by, document=json.loads(found.document)
    )


_serve("/providers", _of_deployment, bodies.described(ProviderEntries))
_serve("/tenants/{tenant_id}/providers", _of_tenant, bodies.described(TenantProviders))
