"""Erasures: of a user, or of the whole tenant."""

from typing import Annotated

from fastapi import APIRouter, Body

from minichat.domain import access_errors, erasure, errors
from minichat.domain.erasure import Erasure
from minichat.http.acting import acts
from minichat.http.admin.access import TenantCall
from minichat.http.admin.data_views import ErasureList, ErasureView, NewErasureBody, whom
from minichat.http.deps import Authenticated, TheApp
from minichat.http.problems import documented
from minichat.services import erasing
from minichat.storage import erasures

router = APIRouter(tags=["data"], route_class=Authenticated)
_PATH = "/tenants/{tenant_id}/erasures"
_REFUSALS = (errors.Forbidden, access_errors.TenantNotFound)
_EXAMPLE = {"user_id": "auth0|5f7c8ec7"}


@router.post(
    _PATH,
    status_code=202,
    dependencies=[acts("data:erase")],
    responses=documented(*_REFUSALS, erasure.ErasureRunning),
)
def create_erasure(
    call: TenantCall, app: TheApp, body: Annotated[NewErasureBody, Body(examples=[_EXAMPLE])]
) -> ErasureView:
    """Erases a user, or the whole tenant. From now on nothing new of theirs begins; the rest takes minutes."""
    return _told(erasing.accept(call, whom(call.caller.tenant_id, body), app.settings))


@router.get(_PATH, dependencies=[acts("data:erase")], responses=documented(*_REFUSALS))
def list_erasures(call: TenantCall) -> ErasureList:
    """Every erasure in the tenant, the oldest first."""
    return ErasureList(items=[_told(one) for one in erasures.of_tenant(call.caller.tenant_id)])


@router.get(
    f"{_PATH}/{{erasure_id}}",
    dependencies=[acts("data:erase")],
    responses=documented(*_REFUSALS, erasure.ErasureNotFound),
)
def get_erasure(call: TenantCall, erasure_id: str) -> ErasureView:
    """How far an erasure is, what it waits for, and once it is complete, its signed manifest."""
    return _told(erasing.shown(call.caller.tenant_id, erasure_id))


def _told(one: Erasure) -> ErasureView:
    return ErasureView(
        id=one.erasure_id,
        scope=one.scope,
        user_id=one.user_id,
        requested_at=one.requested_at,
        completed_at=one.completed_at,
        passes=one.progress.passes,
        waits_for=one.progress.waits_for,
        counts=dict(one.counts),
        manifest=one.manifest,
    )
