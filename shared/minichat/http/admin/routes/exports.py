"""Exports: of a user, or of the whole tenant."""

from typing import Annotated

from fastapi import APIRouter, Body

from minichat.domain import access_errors, errors, export
from minichat.http.acting import acts
from minichat.http.admin.access import TenantCall
from minichat.http.admin.data_views import NewExportBody, whom
from minichat.http.deps import Authenticated, TheApp
from minichat.http.export_views import ExportList, ExportView, export_view, with_links
from minichat.http.problems import documented
from minichat.services import exporting
from minichat.storage import exports

router = APIRouter(tags=["data"], route_class=Authenticated)
_PATH = "/tenants/{tenant_id}/exports"
_REFUSALS = (errors.Forbidden, access_errors.TenantNotFound)
_EXAMPLE = {"user_id": "auth0|5f7c8ec7"}


@router.post(
    _PATH,
    status_code=202,
    dependencies=[acts("data:export")],
    responses=documented(*_REFUSALS),
)
def export_data(call: TenantCall, app: TheApp, body: Annotated[NewExportBody, Body(examples=[_EXAMPLE])]) -> ExportView:
    """Begins to write everything that is kept of a user, or of the whole tenant, into files."""
    return export_view(exporting.accept(call, whom(call.caller.tenant_id, body), app.settings), [])


@router.get(_PATH, dependencies=[acts("data:export")], responses=documented(*_REFUSALS))
def list_exports(call: TenantCall) -> ExportList:
    """Every export in the tenant that is not over, those of users too, the oldest first."""
    found = (one for one in exports.of_tenant(call.caller.tenant_id) if not one.is_over(call.now))
    return ExportList(items=[export_view(one, []) for one in found])


@router.get(
    f"{_PATH}/{{export_id}}",
    dependencies=[acts("data:export")],
    responses=documented(*_REFUSALS, export.ExportNotFound),
)
def get_tenant_export(call: TenantCall, app: TheApp, export_id: str) -> ExportView:
    """How far an export is, and once it is ready, links to its files. Who has one can fetch the file with it."""
    return with_links(exporting.shown(call.caller.tenant_id, export_id, call.now), call.now, app.settings)
