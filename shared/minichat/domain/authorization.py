"""Who may do what with which resource (docs/authorization.md).

The default policies are Cedar text (`minichat/policies/authorization.cedar`), compiled into a table: what they permit
or forbid depends only on the caller's roles, the action, and how the resource stands to the caller. A tenant's own
policies come on top (`Caller.decides`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from minichat.domain.actions import CHAT_READS, Action
from minichat.domain.authorization_table import FORBIDS, PERMITS
from minichat.domain.errors import Forbidden
from minichat.domain.identity import Caller, Decision, Resource

Relation = Literal["own", "tenant", "foreign"]
"""How a resource stands to the caller: their own; of another user of their tenant, or of the tenant itself; or of
another tenant, or of the deployment."""

RELATIONS: tuple[Relation, ...] = ("own", "tenant", "foreign")
ANYBODY = "user"
"""What every caller is, whatever roles they have besides."""
SCOPE = "api-key-scope"
"""Stands for a policy where the scopes of an API key refuse."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policies say of an action: those that permit, and those that forbid and have the last word."""

    permits: tuple[str, ...]
    forbids: tuple[str, ...]

    def and_also(self, other: "Verdict") -> "Verdict":
        """What both say together."""
        return Verdict(self.permits + other.permits, self.forbids + other.forbids)

    @property
    def decided(self) -> Decision:
        """Whether it is permitted, and the policies because of which."""
        if self.forbids:
            return Decision(allowed=False, policies=self.forbids)
        return Decision(allowed=bool(self.permits), policies=self.permits)


def relation(caller: Caller, resource: Resource) -> Relation:
    """How the resource stands to the caller."""
    if resource.tenant_id is None or resource.tenant_id != caller.tenant_id:
        return "foreign"
    return "own" if resource.owner == caller.user_id else "tenant"


def by_default(roles: Iterable[str], action: Action, how: Relation) -> Verdict:
    """What the default policies say of an action on a resource that stands so to a caller with these roles."""
    who = [ANYBODY, *sorted(roles)]
    return Verdict(_found(PERMITS, who, action, how), _found(FORBIDS, who, action, how))


def _found(
    table: dict[str, dict[str, dict[str, tuple[str, ...]]]], who: list[str], action: str, how: str
) -> tuple[str, ...]:
    return tuple(policy for role in who for policy in table.get(role, {}).get(action, {}).get(how, ()))


def decide(caller: Caller, action: Action, resource: Resource) -> Decision:
    """Whether the caller may do this with the resource; what nothing permits is refused.

    The scopes of an API key narrow whatever the policies say, the tenant's own too.
    Raises ServiceUnavailable when the tenant's own policies cannot be evaluated.
    """
    if caller.scopes is not None and action not in caller.scopes:
        return Decision(allowed=False, policies=(SCOPE,))
    if caller.decides is not None:
        return caller.decides(action, resource)
    return by_default(caller.roles, action, relation(caller, resource)).decided


def ever(caller: Caller, action: Action) -> Decision:
    """Whether the default policies permit this with any resource at all; known before anything is read."""
    if caller.scopes is not None and action not in caller.scopes:
        return Decision(allowed=False, policies=(SCOPE,))
    said = [by_default(caller.roles, action, how).decided for how in RELATIONS]
    allowing = next((one for one in said if one.allowed), None)
    return allowing or Decision(allowed=False, policies=tuple(dict.fromkeys(p for one in said for p in one.policies)))


def sees(caller: Caller, chat: Resource) -> bool:
    """Whether the caller may know of a chat: who may read any of it does. A key's scopes hide nothing."""
    if relation(caller, chat) == "own":
        return True
    if caller.decides is not None:
        return any(caller.decides(action, chat).allowed for action in sorted(CHAT_READS))
    return any(by_default(caller.roles, action, relation(caller, chat)).decided.allowed for action in CHAT_READS)


def check(caller: Caller, action: Action, resource: Resource) -> None:
    """Raises Forbidden when the caller may not do this; ServiceUnavailable as `decide`."""
    decision = decide(caller, action, resource)
    if not decision.allowed:
        raise Forbidden(action, decision.policies)
