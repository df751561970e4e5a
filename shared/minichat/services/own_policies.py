"""A tenant's own policies, as Cedar text on top of the default ones (docs/authorization.md).

Cedar's engine takes 95 ms to import and 16 MB: only a process that serves a tenant with policies of its own does so.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from minichat.domain.access_errors import AuthorizationInvalid
from minichat.domain.actions import CHAT_READS, CHAT_WRITES, RECOVERY, ROLES, Action
from minichat.domain.authorization import Verdict, relation
from minichat.domain.errors import FieldError, ServiceUnavailable
from minichat.domain.identity import Caller, Resource
from minichat.observability import logger

if TYPE_CHECKING:
    from cedarpy import PolicySet, Schema

SCHEMA = Path(__file__).parent.parent / "policies" / "authorization.cedarschema"
MAX_BYTES = 50_000
PREFIX = "tenant:"
"""Begins the ids of a tenant's own policies in the audit trail, before what their `@id` says."""

_CHAT_ACTIONS = CHAT_READS | CHAT_WRITES
_ACCOUNT_ACTIONS = frozenset(("chat:create", "chat:list", "model:list", "quota:read", "usage:read"))
_OF_ADMIN = ("administer", "read", "write", *sorted(RECOVERY))


@dataclass(frozen=True, slots=True)
class OwnPolicies:
    """The parsed policies of one version: those that permit and those that forbid, each by its id."""

    version: int
    permits: "PolicySet"
    forbids: "PolicySet"

    def said(self, caller: Caller, action: Action, resource: Resource) -> Verdict:
        """What they say of an action; nothing of another tenant's resources, and of what mends them.

        They cannot permit anybody to change a chat of another user.
        Raises ServiceUnavailable when they cannot be evaluated: an error in a policy that forbids must not permit.
        """
        how = relation(caller, resource)
        if how == "foreign" or action in RECOVERY:
            return Verdict((), ())
        forbids = _evaluated(self.forbids, caller, action, resource)
        if how != "own" and action in CHAT_WRITES:
            return Verdict((), forbids)
        return Verdict(_evaluated(self.permits, caller, action, resource), forbids)


def parsed(version: int, text: str) -> OwnPolicies:
    """The policies of a published text. Raises ServiceUnavailable when Cedar is not there or does not take it."""
    try:
        policies = _policies(text)
        return OwnPolicies(version, _set(policies, "permit"), _set(policies, "forbid"))
    except (ImportError, ValueError) as error:
        logger.exception("a tenant's own policies cannot be read", extra={"version": version})
        raise ServiceUnavailable from error


def checked(text: str) -> None:
    """Raises AuthorizationInvalid unless the text can be a tenant's own policies.

    It must parse, speak only of what the schema has, give each policy an id of its own, and not forbid an
    administrator what undoes it.
    """
    from cedarpy import validate_policies  # noqa: PLC0415  only who publishes needs it

    if len(text.encode()) > MAX_BYTES:
        raise _invalid("too_large", f"The policies have more than {MAX_BYTES} bytes.")
    found = validate_policies(text, _schema())
    if not found.validation_passed:
        raise AuthorizationInvalid(*(FieldError("policies", str(error), "invalid") for error in found.errors[:20]))
    try:
        policies = _policies(text)
    except ValueError as error:
        raise _invalid("invalid", str(error)) from error
    for policy_id, policy in policies.items():
        if policy["effect"] == "forbid" and _covers_recovery(policy) and _covers_admin(policy):
            raise _invalid(
                "locks_out",
                f"{policy_id} would forbid administrators to mend these policies: name the actions that it forbids, "
                'or a role other than tenant_admin (`principal in Role::"..."`).',
            )


def _invalid(code: str, message: str) -> AuthorizationInvalid:
    return AuthorizationInvalid(FieldError("policies", message, code))


def _policies(text: str) -> dict[str, dict[str, Any]]:
    """Each policy as Cedar's JSON, by its id. Raises ValueError."""
    from cedarpy import policies_to_json_str  # noqa: PLC0415  see above

    said = json.loads(policies_to_json_str(text))
    if said["templates"]:
        raise ValueError("A policy with a slot (`?principal`, `?resource`) says nothing by itself.")
    found: dict[str, dict[str, Any]] = {}
    for policy in said["staticPolicies"].values():
        policy_id = policy.get("annotations", {}).get("id")
        if not policy_id:
            raise ValueError('Each policy needs an @id("..."), by which the audit trail names it.')
        if PREFIX + policy_id in found:
            raise ValueError(f"Two policies have the id {policy_id}.")
        found[PREFIX + policy_id] = policy
    return found


def _set(policies: dict[str, dict[str, Any]], effect: Literal["permit", "forbid"]) -> "PolicySet":
    from cedarpy import PolicySet  # noqa: PLC0415  see above

    wanted = {name: policy for name, policy in policies.items() if policy["effect"] == effect}
    return PolicySet.from_json_str(json.dumps({"templates": {}, "staticPolicies": wanted, "templateLinks": []}))


@cache
def _schema() -> "Schema":
    from cedarpy import Schema  # noqa: PLC0415  see above

    return Schema.from_str(SCHEMA.read_text(encoding="utf-8"))


def _covers_recovery(policy: dict[str, Any]) -> bool:
    scope = policy["action"]
    named = [scope["entity"]] if "entity" in scope else scope.get("entities", [])
    return scope["op"] == "All" or any(one["id"] in _OF_ADMIN for one in named)


def _covers_admin(policy: dict[str, Any]) -> bool:
    scope = policy["principal"]
    # Who the administrators are is the issuer's to say: any single user may be the last one.
    entity = scope.get("entity") or scope.get("in", {}).get("entity", {})
    return not (entity.get("type") == "Role" and entity.get("id") in ROLES and entity["id"] != "tenant_admin")


def _evaluated(policies: "PolicySet", caller: Caller, action: Action, resource: Resource) -> tuple[str, ...]:
    from cedarpy import is_authorized  # noqa: PLC0415  see above

    me, what = {"type": "User", "id": caller.user_id}, _entity(action, resource)
    entities = [
        {
            "uid": me,
            "attrs": {"tenant": _ref("Tenant", caller.tenant_id)},
            "parents": [{"type": "Role", "id": role} for role in sorted(caller.roles)],
        },
        what,
    ]
    request = {"principal": me, "action": {"type": "Action", "id": action}, "resource": what["uid"], "context": {}}
    result = is_authorized(request, policies, entities, _schema())
    if result.diagnostics.errors:
        logger.error("a tenant's own policies cannot be evaluated", extra={"reason": str(result.diagnostics.errors)})
        raise ServiceUnavailable
    return tuple(sorted(result.diagnostics.reasons))


def _entity(action: Action, resource: Resource) -> dict[str, Any]:
    tenant = _ref("Tenant", resource.tenant_id or "")
    owner = _ref("User", resource.owner or "")
    if action in _CHAT_ACTIONS:
        uid = {"type": "Chat", "id": resource.chat_id or ""}
        return {"uid": uid, "attrs": {"tenant": tenant, "owner": owner}, "parents": []}
    if action in _ACCOUNT_ACTIONS:
        uid = {"type": "Account", "id": resource.owner or ""}
        return {"uid": uid, "attrs": {"tenant": tenant, "owner": owner}, "parents": []}
    uid = {"type": "Administration", "id": resource.tenant_id or ""}
    return {"uid": uid, "attrs": {"tenant": tenant}, "parents": []}


def _ref(kind: str, name: str) -> dict[str, Any]:
    return {"__entity": {"type": kind, "id": name}}
