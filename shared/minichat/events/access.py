"""Events of who may do what: a role used, a grant given or ended, a tenant's own policies published."""

from datetime import datetime
from typing import Literal

from minichat.events.base import Audited


class RoleUsed(Audited):
    """Somebody did what only a role of theirs permits: with a resource of another user, or of the tenant.

    `resource_tenant` is absent where the resource is the deployment's, `resource_owner` where it is no user's;
    `grant_id` is there when support acts.
    """

    event_type: Literal["role_used"] = "role_used"
    actor_user_id: str
    roles: list[str]
    action: str
    decision: Literal["allow"] = "allow"
    policies: list[str]
    resource_tenant: str | None = None
    resource_owner: str | None = None
    chat_id: str | None = None
    grant_id: str | None = None


class GrantChanged(Audited):
    """An administrator let somebody of support read for a while, and why; or ended that before its time."""

    event_type: Literal["grant_create", "grant_revoke"]
    actor_user_id: str
    grant_id: str
    support_user_id: str
    until: datetime
    reason: str


class AuthorizationPublished(Audited):
    """Another version of a tenant's own policies is in force."""

    event_type: Literal["authorization_published"] = "authorization_published"
    actor_user_id: str
    version: int
    previous_version: int | None = None
