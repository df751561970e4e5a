"""Layers of the policy: the deployment's, a tenant's and a user's, each with the same operations."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path
from pydantic import StrictBool

from minichat.domain import access_errors, errors
from minichat.domain.access_errors import TenantNotFound
from minichat.domain.identity import Call
from minichat.domain.policy import MAX_VERSION, KillSwitches, Policy, UserLimits
from minichat.domain.policy_layers import TenantLayer, UserLayer
from minichat.http.acting import acts
from minichat.http.admin import bodies
from minichat.http.admin.access import Before, Limit, OperatorCall, TenantCall, TheUser
from minichat.http.admin.views import (
    Changes,
    ChangeView,
    LimitsView,
    PolicyVersions,
    PolicyVersionView,
    PublishedView,
    SwitchesView,
)
from minichat.http.deps import Authenticated, TheApp, TheCall
from minichat.http.problems import documented
from minichat.services import policy_layers
from minichat.services.policy_layers import Publisher
from minichat.settings import Settings
from minichat.storage import policies
from minichat.storage.policies import DEPLOYMENT, Place, Published

_PATH, _OF_TENANT = "/policy", "/tenants/{tenant_id}/policy"

router = APIRouter(tags=["policy"], route_class=Authenticated)
Document = Annotated[dict[str, Any], Body()]
Version = Annotated[int, Path(ge=0, le=MAX_VERSION)]
Limits = Annotated[UserLimits, Body(examples=[bodies.LIMITS])]
Switches = Annotated[
    dict[str, StrictBool],
    Body(
        examples=[bodies.SWITCHES],
        json_schema_extra={"propertyNames": {"enum": [*KillSwitches.model_fields]}},
    ),
]


async def _deployment(call: OperatorCall) -> Place[Any]:
    del call  # it is refused to others
    return DEPLOYMENT


async def _tenant(call: TenantCall) -> Place[Any]:
    return policies.of_tenant(call.caller.tenant_id)


async def _of_user(call: TenantCall, user_id: TheUser) -> Place[Any]:
    return policies.of_user(call.caller.tenant_id, user_id)


def _serve(path: str, place_of: Any, about: dict[str, Any]) -> None:
    """Adds the operations that read one layer below `path`; `about` describes a document of it."""
    at, read = Depends(place_of), [acts("policy:read")]

    @router.get(path, dependencies=read, responses=documented(*_REFUSALS))
    def get_policy(place: Annotated[Place[Any], at]) -> PolicyVersionView:
        """The version in force."""
        return _version(policy_layers.shown(place))

    @router.get(f"{path}/versions", dependencies=read, responses=documented(*_REFUSALS))
    def list_policy_versions(
        place: Annotated[Place[Any], at], limit: Limit = 20, before: Before = MAX_VERSION + 1
    ) -> PolicyVersions:
        """The newest versions, the newest first. The next page is that before the last one's version."""
        newest = policies.history(place, min(before, MAX_VERSION + 1))
        return PolicyVersions(items=[_version(one) for _, one in zip(range(limit), newest, strict=False)])

    @router.get(f"{path}/versions/{{version}}", dependencies=read, responses=documented(*_REFUSALS))
    def get_policy_version(place: Annotated[Place[Any], at], version: Version) -> PolicyVersionView:
        """One version."""
        return _version(policy_layers.shown(place, version))

    checks = documented(TenantNotFound)

    @router.post(f"{path}/validate", status_code=204, dependencies=read, responses=checks, openapi_extra=about)
    def validate_policy(place: Annotated[Place[Any], at], app: TheApp, document: Document) -> None:
        """Checks a document; what is wrong is named by its path, and nothing is published."""
        policy_layers.checked(document, place, app.settings)

    @router.post(f"{path}/diff", dependencies=read, responses=checks, openapi_extra=about)
    def diff_policy(place: Annotated[Place[Any], at], app: TheApp, document: Document) -> Changes:
        """What publishing a document would change."""
        found = policy_layers.compared(document, place, app.settings)
        return Changes(items=[ChangeView(path=one.path, before=one.before, after=one.after) for one in found])


def _serve_publishing(path: str, place_of: Any, about: dict[str, Any]) -> None:
    """Adds the operations that put versions of one layer in force below `path`."""
    at, publishes, answers = Depends(place_of), [acts("policy:publish")], documented(*_CONFLICTS)

    @router.post(f"{path}/versions", status_code=201, dependencies=publishes, responses=answers, openapi_extra=about)
    def publish_policy(
        place: Annotated[Place[Any], at], call: TheCall, app: TheApp, document: Document
    ) -> PublishedView:
        """Puts a document in force."""
        return _published(document, place, app.settings, call)

    if path == _PATH:
        return

    @router.delete(path, dependencies=publishes, responses=answers)
    def withdraw_policy(place: Annotated[Place[Any], at], call: TheCall, app: TheApp) -> PublishedView:
        """Puts a version in force that says nothing: everything is inherited again."""
        return _published(None, place, app.settings, call)


def _serve_switches(path: str, place_of: Any) -> None:
    """Adds the operations of the kill switches of one layer below `path`."""
    at = Depends(place_of)

    @router.get(f"{path}/kill_switches", dependencies=[acts("policy:read")], responses=documented(*_REFUSALS))
    def get_kill_switches(place: Annotated[Place[Any], at]) -> SwitchesView:
        """The switches of this layer alone."""
        version, document = _said(place)
        return SwitchesView(version=version, kill_switches=document.get("kill_switches", {}))

    @router.patch(f"{path}/kill_switches", dependencies=[acts("switch:write")], responses=documented(*_CONFLICTS))
    def set_kill_switches(
        place: Annotated[Place[Any], at], call: TheCall, app: TheApp, switches: Switches
    ) -> SwitchesView:
        """Switches features off (true) or on again, in a new version of the layer that is otherwise the same."""
        version, document = _said(place)
        if version is None and place.tenant_id is None:
            raise access_errors.PolicyNotFound
        changed = {**document.get("kill_switches", {}), **switches}
        following = {**document, "policy_version": (version or 0) + 1, "kill_switches": changed}
        made = _published(following, place, app.settings, call)
        return SwitchesView(version=made.version, kill_switches=changed)


_REFUSALS = (errors.Forbidden, TenantNotFound, access_errors.PolicyNotFound)
_CONFLICTS = (*_REFUSALS, access_errors.PolicyConflict)


def _version(found: Published[Any] | None) -> PolicyVersionView:
    if found is None:
        raise access_errors.PolicyNotFound
    return PolicyVersionView(
        version=found.version,
        published_at=found.at,
        published_by=found.by,
        withdrawn=found.withdrawn,
        document=found.policy.model_dump(mode="json", exclude_unset=True),
    )


def _said(place: Place[Any]) -> tuple[int | None, dict[str, Any]]:
    """The version in force, and what it says."""
    found = policy_layers.shown(place)
    return (None, {}) if found is None else (found.version, found.policy.model_dump(mode="json", exclude_unset=True))


def _published(document: dict[str, Any] | None, place: Place[Any], settings: Settings, call: Call) -> PublishedView:
    publisher = Publisher(by=call.caller.user_id, at=call.now, token=call.new_id(call.now))
    try:
        return PublishedView(version=policy_layers.publish(document, place, settings, publisher))
    except policies.VersionTaken as taken:
        detail = f"Version {taken.wanted} cannot follow version {taken.current}, which stays in force."
        raise access_errors.PolicyConflict(detail) from taken


for _path, _place_of, _kind in (
    (_PATH, _deployment, Policy),
    (_OF_TENANT, _tenant, TenantLayer),
    ("/tenants/{tenant_id}/users/{user_id}/policy", _of_user, UserLayer),
):
    _serve(_path, _place_of, bodies.described(_kind))
    _serve_publishing(_path, _place_of, bodies.described(_kind))
for _path, _place_of in ((_PATH, _deployment), (_OF_TENANT, _tenant)):
    _serve_switches(_path, _place_of)

_LIMITS = "/tenants/{tenant_id}/users/{user_id}/limits"


@router.get(_LIMITS, dependencies=[acts("limits:read")], responses=documented(*_REFUSALS))
def get_user_limits(call: TenantCall, user_id: TheUser) -> LimitsView:
    """A user's own limits."""
    version, document = _said(policies.of_user(call.caller.tenant_id, user_id))
    return LimitsView(version=version, limits=document.get("limits"))


@router.put(_LIMITS, dependencies=[acts("limits:write")], responses=documented(*_CONFLICTS))
def set_user_limits(call: TenantCall, app: TheApp, user_id: TheUser, limits: Limits) -> LimitsView:
    """Gives a user limits of their own, from their next send on.

    Limits below what is used are accepted: running turns end as they began, and the next send is refused or downgraded.
    """
    place = policies.of_user(call.caller.tenant_id, user_id)
    version, document = _said(place)
    following = {**document, "policy_version": (version or 0) + 1, "limits": limits.model_dump(mode="json")}
    made = _published(following, place, app.settings, call)
    return LimitsView(version=made.version, limits=limits)
