"""The decision point: who may do what, decided before anything is read beyond what decides (docs/authorization.md).

An ordinary user's decision is a look into a table, and leaves nothing behind. A caller with roles has a `Deciding`:
each use of what only a role permits leaves an event, before it takes place.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from minichat import greenlets
from minichat.domain.actions import CHAT_WRITES, OWN_ACCOUNT, Action
from minichat.domain.authorization import SCOPE, by_default, decide, ever, relation
from minichat.domain.errors import Forbidden
from minichat.domain.identity import Caller, ChatId, Decision, Resource
from minichat.events.access import RoleUsed
from minichat.moment import new_id, now
from minichat.services import grants
from minichat.services.own_policies import OwnPolicies
from minichat.services.own_policies_in_force import OwnPoliciesInForce
from minichat.settings import Settings
from minichat.storage import outbox
from minichat.storage.grants import Grant

UNDECLARED = "undeclared-route"
"""Stands for a policy where a route names no action."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is to do, before anything is read: the action of its route, and the chat that its path names."""

    action: Action | None
    chat_id: ChatId | None = None
    trace_id: str = ""


class DecisionPoint:
    """Decides for the requests of one process."""

    def __init__(self, settings: Settings) -> None:
        self.own_policies = OwnPoliciesInForce(settings.policy_refresh_seconds)

    async def admitted(self, caller: Caller, asked: Asked) -> Caller:
        """The caller with their action, when it may be permitted; what decides exactly is then the resource's owner.

        Raises Forbidden when it is permitted with no resource at all; ServiceUnavailable when it cannot be decided.
        """
        if asked.action is None:
            raise Forbidden(policies=(UNDECLARED,))
        own = await self.own_policies.of(caller.tenant_id)
        if not caller.roles and own is None:
            caller = replace(caller, action=asked.action)
            _admit(caller, asked.action, asked, own)
            return caller
        return await greenlets.run(self._with_roles, caller, asked.action, asked, own)

    def _with_roles(self, caller: Caller, action: Action, asked: Asked, own: OwnPolicies | None) -> Caller:
        instant, grant = now(), None
        if "support" in caller.roles:
            grant = grants.in_force(caller, instant)
            if grant is None:
                caller = replace(caller, roles=caller.roles - {"support"})
        caller = replace(caller, action=action)
        deciding = Deciding(caller, own, grant, instant, asked.trace_id)
        caller = replace(caller, decides=deciding)
        _admit(caller, action, asked, own)
        return caller


def _admit(caller: Caller, action: Action, asked: Asked, own: OwnPolicies | None) -> None:
    """Raises Forbidden when the action is refused whatever the resource."""
    if action in OWN_ACCOUNT:
        decision = decide(caller, action, Resource(caller.tenant_id, caller.user_id))
    elif action in CHAT_WRITES:
        # Only its owner can change a chat: by the keys, and by the conditions of every write.
        decision = decide(caller, action, Resource(caller.tenant_id, caller.user_id, asked.chat_id))
    else:
        decision = ever(caller, action)
        if own is not None and decision.policies != (SCOPE,):
            # The tenant's own may permit it with some resource; which one is known later, and decided then.
            return
    if not decision.allowed:
        raise Forbidden(action, decision.policies)


@dataclass(slots=True)
class Deciding:
    """Decides for one request whose caller has roles, or whose tenant has policies of its own."""

    caller: Caller
    own: OwnPolicies | None
    grant: Grant | None
    at: datetime
    trace_id: str
    told: set[Resource] = field(default_factory=set)

    def __call__(self, action: Action, resource: Resource) -> Decision:
        """The decision of all policies together: one that forbids has the last word.

        A role's use for what the request is to do leaves its event first: nothing is done without a trace.
        Raises ServiceUnavailable when the tenant's own policies cannot be evaluated, or the event not be written.
        """
        caller = self.caller
        how = relation(caller, resource)
        said = by_default(caller.roles, action, how)
        if self.own is not None:
            said = said.and_also(self.own.said(caller, action, resource))
        decision = said.decided
        as_anybody = by_default((), action, how).decided.allowed
        if decision.allowed and not as_anybody and action == caller.action and resource not in self.told:
            outbox.once(self._event(action, resource, decision), new_id(self.at), op="role_used")
            self.told.add(resource)
        return decision

    def _event(self, action: Action, resource: Resource, decision: Decision) -> RoleUsed:
        return RoleUsed(
            tenant_id=self.caller.tenant_id,
            timestamp=self.at,
            requester_type=self.caller.subject_type,
            trace_id=self.trace_id or None,
            actor_user_id=self.caller.user_id,
            roles=sorted(self.caller.roles),
            action=action,
            policies=list(decision.policies),
            resource_tenant=resource.tenant_id,
            resource_owner=resource.owner,
            chat_id=resource.chat_id,
            grant_id=None if self.grant is None else self.grant.grant_id,
        )
