"""Grants: who of support may read in a tenant, until when, and why."""

from typing import Annotated

from fastapi import APIRouter, Body

from minichat.domain import access_errors, errors
from minichat.domain.errors import FieldError as Wrong
from minichat.domain.errors import InvalidRequest
from minichat.domain.identity import UserId
from minichat.domain.names import said
from minichat.http.acting import acts
from minichat.http.admin.access import TenantCall
from minichat.http.admin.views import GrantList, GrantView, NewGrantBody
from minichat.http.deps import Authenticated
from minichat.http.problems import documented
from minichat.services import grants
from minichat.storage.grants import Grant

router = APIRouter(tags=["grants"], route_class=Authenticated)
_PATH = "/tenants/{tenant_id}/grants"
_REFUSALS = (errors.Forbidden, access_errors.TenantNotFound)
_EXAMPLE = {"user_id": "auth0|5f7c8ec7", "until": "2030-01-31T12:00:00Z", "reason": "Ticket 7: answers stop early"}


@router.get(_PATH, dependencies=[acts("grant:list")], responses=documented(*_REFUSALS))
def list_grants(call: TenantCall) -> GrantList:
    """The tenant's grants that have not ended, the oldest first."""
    return GrantList(items=[_told(grant) for grant in grants.listed(call)])


@router.post(_PATH, status_code=201, dependencies=[acts("grant:create")], responses=documented(*_REFUSALS))
def create_grant(call: TenantCall, body: Annotated[NewGrantBody, Body(examples=[_EXAMPLE])]) -> GrantView:
    """Lets somebody who has the role `support` read in the tenant until then, 8 hours from now at most."""
    try:
        user_id = UserId(said(body.user_id))
    except ValueError as problem:
        raise InvalidRequest(Wrong("user_id", str(problem))) from None
    return _told(grants.create(call, user_id, body.until, body.reason))


@router.delete(
    f"{_PATH}/{{grant_id}}",
    status_code=204,
    dependencies=[acts("grant:revoke")],
    responses=documented(*_REFUSALS, access_errors.GrantNotFound),
)
def revoke_grant(call: TenantCall, grant_id: str) -> None:
    """Ends a grant now: the next request of its user is refused, and a stream that runs goes on to its end."""
    grants.revoke(call, grant_id)


def _told(grant: Grant) -> GrantView:
    return GrantView(
        id=grant.grant_id,
        user_id=grant.user_id,
        until=grant.until,
        reason=grant.reason,
        granted_by=grant.granted_by,
        granted_at=grant.granted_at,
    )
