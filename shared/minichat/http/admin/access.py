"""For which tenant somebody uses the operator's API, and that they may: the decision point says it.

What another tenant has is unknown to who may not do this there: 404. What one may not do in one's own tenant, or with
the deployment, is refused: 403.
"""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Path

from minichat import greenlets
from minichat.domain.access_errors import TenantNotFound
from minichat.domain.authorization import check, decide
from minichat.domain.errors import FieldError as Wrong
from minichat.domain.errors import Forbidden, InvalidRequest
from minichat.domain.identity import Call, Resource, TenantId, UserId
from minichat.domain.names import said
from minichat.http.deps import TheCall


async def _of_deployment(call: TheCall) -> Call:
    action = call.caller.action
    assert action is not None, "admitted with one"
    await greenlets.run(check, call.caller, action, Resource(None))
    return call


async def _of_tenant(call: TheCall, tenant_id: Annotated[str, Path()]) -> Call:
    caller, action = call.caller, call.caller.action
    assert action is not None, "admitted with one"
    try:
        tenant = TenantId(said(tenant_id))
    except ValueError:
        raise TenantNotFound from None
    decision = await greenlets.run(decide, caller, action, Resource(tenant))
    if decision.allowed:
        # What decides still knows the caller as who they are, and so does the event of the role's use.
        return replace(call, caller=replace(caller, tenant_id=tenant))
    if tenant != caller.tenant_id:
        raise TenantNotFound
    raise Forbidden(action, decision.policies)


async def _user(user_id: Annotated[str, Path()]) -> UserId:
    try:
        return UserId(said(user_id))
    except ValueError as problem:
        raise InvalidRequest(Wrong("user_id", str(problem))) from None


OperatorCall = Annotated[Call, Depends(_of_deployment)]
"""A call about the deployment, which its caller may make."""
TenantCall = Annotated[Call, Depends(_of_tenant)]
"""A call in the tenant that the path names, which its caller may make there: an operator's too."""
TheUser = Annotated[UserId, Depends(_user)]
