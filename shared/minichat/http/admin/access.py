"""For which tenant somebody uses the operator's API, and that they may: the decision point says it.

What another tenant has is unknown to who may not do this there: 404. What one may not do in one's own tenant, or with
the deployment, is refused: 403.
"""

import re
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Path, Query

from minichat import greenlets
from minichat.domain.access_errors import TenantNotFound
from minichat.domain.authorization import check, decide
from minichat.domain.errors import FieldError as Wrong
from minichat.domain.errors import Forbidden, InvalidRequest
from minichat.domain.identity import Call, Resource, TenantId, UserId
from minichat.domain.names import said
from minichat.http.deps import TheCall

_NAME = "As tokens say it, percent-encoded; a slash is `%252F`."
_SLASH = re.compile("%2F", re.IGNORECASE)


async def _of_deployment(call: TheCall) -> Call:
    action = call.caller.action
    assert action is not None, "admitted with one"
    await greenlets.run(check, call.caller, action, Resource(None))
    return call


async def _of_tenant(call: TheCall, tenant_id: Annotated[str, Path(description=_NAME)]) -> Call:
    caller, action = call.caller, call.caller.action
    assert action is not None, "admitted with one"
    try:
        tenant = TenantId(_named(tenant_id))
    except ValueError:
        raise TenantNotFound from None
    decision = await greenlets.run(decide, caller, action, Resource(tenant))
    if decision.allowed:
        # What decides still knows the caller as who they are, and so does the event of the role's use.
        return replace(call, caller=replace(caller, tenant_id=tenant))
    if tenant != caller.tenant_id:
        raise TenantNotFound
    raise Forbidden(action, decision.policies)


async def _user(user_id: Annotated[str, Path(description=_NAME)]) -> UserId:
    try:
        return UserId(_named(user_id))
    except ValueError as problem:
        raise InvalidRequest(Wrong("user_id", str(problem))) from None


def _named(part: str) -> str:
    """The name in a path. A slash would end its part even percent-encoded, so it is encoded twice: `%252F`."""
    return said(_SLASH.sub("/", part))


OperatorCall = Annotated[Call, Depends(_of_deployment)]
"""A call about the deployment, which its caller may make."""
TenantCall = Annotated[Call, Depends(_of_tenant)]
"""A call in the tenant that the path names, which its caller may make there: an operator's too."""
TheUser = Annotated[UserId, Depends(_user)]
Before = Annotated[int, Query(ge=1, description="Only versions below this one: the last one of a page.")]
Limit = Annotated[int, Query(ge=1, le=100)]
