"""Erasures: of a user, or of the whole tenant."""

from typing import Annotated

from fastapi import APIRouter, Body

from minichat.domain import access_errors, erasure, errors
from minichat.domain.erasure import Erasure
from minichat.domain.errors import FieldError as Wrong
from minichat.domain.errors import InvalidRequest
from minichat.domain.identity import TenantId, UserId
from minichat.domain.names import said
from minichat.http.acting import acts
from minichat.http.admin.access import TenantCall
from minichat.http.admin.data_views import ErasureList, ErasureView, NewErasureBody
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
    return _told(erasing.accept(call, _whom(call.caller.tenant_id, body), app.settings))


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


def _whom(tenant_id: TenantId, body: NewErasureBody) -> UserId | None:
    """The user to be erased; None for the whole tenant, which has to be named once more."""
    try:
        user_id = None if body.user_id is None else UserId(said(body.user_id))
        whole = None if body.whole_tenant is None else said(body.whole_tenant)
    except ValueError as problem:
        raise InvalidRequest(Wrong("body", str(problem))) from None
    if (user_id is None) == (whole is None):
        raise InvalidRequest(Wrong("user_id", "Either a user is erased, or the whole tenant.", "one_of"))
    if whole not in (None, tenant_id):
        raise InvalidRequest(Wrong("whole_tenant", "This is not the tenant of the path.", "mismatch"))
    return user_id


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
