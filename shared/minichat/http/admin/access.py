"""Who may use the operator's API, and for which tenant.

An operator serves every tenant. A tenant's administrator serves their own, its auditor reads it. What another tenant
has is unknown to them: 404. Who has no such role is refused: 403.
"""

from typing import Annotated

from fastapi import Depends, Path
from starlette.requests import Request

from minichat.domain.errors import FieldError as Wrong
from minichat.domain.errors import Forbidden, InvalidRequest, TenantNotFound
from minichat.domain.identity import Call, TenantId, UserId
from minichat.domain.names import said
from minichat.http.deps import TheCall

_READS = (":read", ":list")


def _permitted(request: Request, call: Call, *, roles: set[str]) -> None:
    """Raises Forbidden unless the caller has a role that permits the route's action."""
    action: str = request.state.action
    caller = call.caller
    if caller.scopes is not None and action not in caller.scopes:
        raise Forbidden("The API key is not for this.")
    has = caller.roles & roles
    if not has or (has == {"auditor"} and not action.endswith(_READS)):
        raise Forbidden("Your roles do not permit this.")


async def _of_deployment(request: Request, call: TheCall) -> Call:
    _permitted(request, call, roles={"operator"})
    return call


async def _of_tenant(request: Request, call: TheCall, tenant_id: Annotated[str, Path()]) -> TenantId:
    try:
        tenant = TenantId(said(tenant_id))
    except ValueError:
        raise TenantNotFound from None
    if "operator" not in call.caller.roles and tenant != call.caller.tenant_id:
        raise TenantNotFound
    _permitted(request, call, roles={"operator", "tenant_admin", "auditor"})
    return tenant


async def _of_own_tenant(request: Request, call: TheCall, tenant_id: Annotated[str, Path()]) -> Call:
    if tenant_id != call.caller.tenant_id:
        raise TenantNotFound
    _permitted(request, call, roles={"tenant_admin", "auditor"})
    return call


async def _user(user_id: Annotated[str, Path()]) -> UserId:
    try:
        return UserId(said(user_id))
    except ValueError as problem:
        raise InvalidRequest(Wrong("user_id", str(problem))) from None


OperatorCall = Annotated[Call, Depends(_of_deployment)]
"""The call of an operator, for the deployment."""
TheTenant = Annotated[TenantId, Depends(_of_tenant)]
"""The tenant that the path names, which the caller may serve."""
OwnTenantCall = Annotated[Call, Depends(_of_own_tenant)]
"""The call of somebody who serves the tenant that the path names, which is their own: an operator has no part in it."""
TheUser = Annotated[UserId, Depends(_user)]
