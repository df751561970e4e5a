"""Grants: a tenant's administrator lets somebody of support read for a limited time, with a reason."""

from datetime import datetime, timedelta
from typing import Literal

from minichat.domain.access_errors import GrantNotFound
from minichat.domain.authorization import check
from minichat.domain.errors import FieldError, InvalidRequest
from minichat.domain.identity import Call, Caller, Resource, UserId
from minichat.domain.text import is_blank
from minichat.events.access import GrantChanged
from minichat.storage import grants
from minichat.storage.grants import Grant

LONGEST = timedelta(hours=8)
MAX_REASON_CHARACTERS = 500


def listed(call: Call) -> list[Grant]:
    """The tenant's grants that have not ended, the oldest first.

    Raises Forbidden, ServiceUnavailable.
    """
    check(call.caller, "grant:list", Resource(call.caller.tenant_id))
    return [one for one in grants.of_tenant(call.caller.tenant_id) if one.until > call.now]


def create(call: Call, user_id: UserId, until: datetime, reason: str) -> Grant:
    """Lets that user, who needs the role `support` besides, read in the caller's tenant until then: 8 hours at most.

    Raises InvalidRequest (`until`, `reason`), Forbidden, ServiceUnavailable.
    """
    check(call.caller, "grant:create", Resource(call.caller.tenant_id))
    if not call.now < until <= call.now + LONGEST:
        raise InvalidRequest(FieldError("until", "A grant ends within 8 hours from now.", "out_of_range"))
    if is_blank(reason) or len(reason) > MAX_REASON_CHARACTERS:
        wrong = f"A grant needs a reason of at most {MAX_REASON_CHARACTERS} characters."
        raise InvalidRequest(FieldError("reason", wrong, "blank" if is_blank(reason) else "too_long"))
    caller = call.caller
    grant_id = call.new_id(call.now)
    grant = Grant(caller.tenant_id, grant_id, user_id, until, reason.strip(), caller.user_id, call.now)
    grants.create(grant, _event(call, grant, "grant_create"), token=call.new_id(call.now))
    return grant


def revoke(call: Call, grant_id: str) -> None:
    """Ends a grant now: the next request of its user is refused, and a stream that runs goes on to its end.

    Raises GrantNotFound, Forbidden, ServiceUnavailable.
    """
    check(call.caller, "grant:revoke", Resource(call.caller.tenant_id))
    found = next((one for one in grants.of_tenant(call.caller.tenant_id) if one.grant_id == grant_id), None)
    if found is None or not grants.delete(found, _event(call, found, "grant_revoke"), token=call.new_id(call.now)):
        raise GrantNotFound


def in_force(caller: Caller, now: datetime) -> Grant | None:
    """The grant by which the caller may read as support now; the one that lasts longest.

    Raises ServiceUnavailable.
    """
    theirs = (one for one in grants.of_tenant(caller.tenant_id) if one.user_id == caller.user_id and now < one.until)
    return max(theirs, key=lambda one: one.until, default=None)


def _event(call: Call, grant: Grant, event_type: Literal["grant_create", "grant_revoke"]) -> GrantChanged:
    return GrantChanged(
        event_type=event_type,
        tenant_id=grant.tenant_id,
        timestamp=call.now,
        requester_type=call.caller.subject_type,
        trace_id=call.trace_id or None,
        actor_user_id=call.caller.user_id,
        grant_id=grant.grant_id,
        support_user_id=grant.user_id,
        until=grant.until,
        reason=grant.reason,
    )
