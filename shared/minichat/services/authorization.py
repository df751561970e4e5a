"""A tenant's own policies: read, checked and published by its administrators."""

from minichat.domain.access_errors import AuthorizationConflict
from minichat.domain.authorization import check
from minichat.domain.identity import Call, Resource
from minichat.events.access import AuthorizationPublished
from minichat.services import own_policies
from minichat.storage import authorizations
from minichat.storage.authorizations import AuthorizationMoved, OwnText


def current(call: Call) -> OwnText | None:
    """The version in force; None before the first.

    Raises Forbidden, ServiceUnavailable.
    """
    tenant_id = call.caller.tenant_id
    check(call.caller, "authorization:read", Resource(tenant_id))
    version = authorizations.current_version(tenant_id)
    return None if version is None else authorizations.read(tenant_id, version)


def publish(call: Call, text: str, base: int | None) -> OwnText:
    """Puts a text in force in place of the version `base` (None: of none), within `policy_refresh_seconds` everywhere.

    An empty text takes the tenant's own policies away.
    Raises AuthorizationInvalid, AuthorizationConflict (another version is in force), Forbidden, ServiceUnavailable;
    nothing is written then.
    """
    caller = call.caller
    check(caller, "authorization:publish", Resource(caller.tenant_id))
    if text.strip():
        own_policies.checked(text)
    own = OwnText((base or 0) + 1, text, call.now, caller.user_id)
    event = AuthorizationPublished(
        tenant_id=caller.tenant_id,
        timestamp=call.now,
        requester_type=caller.subject_type,
        trace_id=call.trace_id or None,
        actor_user_id=caller.user_id,
        version=own.version,
        previous_version=base,
    )
    try:
        authorizations.publish(caller.tenant_id, own, base, event, token=call.new_id(call.now))
    except AuthorizationMoved as moved:
        raise AuthorizationConflict(moved.current) from moved
    return own
