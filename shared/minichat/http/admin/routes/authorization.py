"""A tenant's own policies of who may do what, as Cedar text."""

from typing import Annotated

from fastapi import APIRouter, Body

from minichat.domain import access_errors, errors
from minichat.http.acting import acts
from minichat.http.admin.access import TenantCall
from minichat.http.admin.views import AuthorizationView, NewAuthorizationBody
from minichat.http.deps import Authenticated
from minichat.http.problems import documented
from minichat.services import authorization
from minichat.storage.authorizations import OwnText

router = APIRouter(tags=["authorization"], route_class=Authenticated)
_PATH = "/tenants/{tenant_id}/authorization"
_REFUSALS = (errors.Forbidden, access_errors.TenantNotFound)
_TEXT = '@id("no-files") forbid (principal, action == Action::"attachment:create", resource);'
NewText = Annotated[NewAuthorizationBody, Body(examples=[{"policies": _TEXT, "base": 1}])]


@router.get(_PATH, dependencies=[acts("authorization:read")], responses=documented(*_REFUSALS))
def get_authorization(call: TenantCall) -> AuthorizationView:
    """The version in force; before the first there is no version, and the text is empty."""
    return _told(authorization.current(call))


@router.put(
    _PATH,
    dependencies=[acts("authorization:publish")],
    responses=documented(*_REFUSALS, access_errors.AuthorizationInvalid, access_errors.AuthorizationConflict),
)
def set_authorization(call: TenantCall, body: NewText) -> AuthorizationView:
    """Puts a text in force in place of the version `base`; an empty one takes the tenant's own policies away."""
    return _told(authorization.publish(call, body.policies, body.base))


def _told(own: OwnText | None) -> AuthorizationView:
    if own is None:
        return AuthorizationView(version=None, policies="", published_at=None, published_by=None)
    return AuthorizationView(version=own.version, policies=own.text, published_at=own.at, published_by=own.by)
