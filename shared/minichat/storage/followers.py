"""Who follows running turns: a user has so many places, in one item; each is somebody's until an instant they renew.

A place is an attribute, `p0`, `p1`, …: until when it is taken, in milliseconds since 1970, and by whom. What is past is
free: of a follower that died nobody needs to know. A place costs one write unit to take, one every RENEW_SECONDS, and
one to give back; a read only where the first guess was somebody's.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path

from minichat.domain.errors import RateLimited
from minichat.domain.identity import Call, TenantId, UserId
from minichat.domain.rates import PATIENCE_SECONDS, milliseconds
from minichat.storage import keys
from minichat.storage.attributes import NumberAttribute
from minichat.storage.conditions import any_of
from minichat.storage.items import ConversationItem, batch_get
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import update_one

RENEW_SECONDS = 20
LEASE_SECONDS = 90
"""A follower looks whether to renew whenever it tells something: every `ping_interval_seconds`, 60 at most."""
_KEPT = timedelta(days=1)


class FollowersItem(ConversationItem):
    """A user's places of followers, named by this module."""

    expires_at = NumberAttribute(null=True)


@dataclass(frozen=True, slots=True)
class FollowerPlace:
    """A follower's place, and what it says: until when, and whose it is."""

    where: Key
    name: str
    holder: str
    says: str


def take(call: Call, limit: int) -> FollowerPlace:
    """A place among the user's followers of running turns.

    Raises RateLimited when all are taken; ServiceUnavailable.
    """
    where, holder = keys.followers(call.caller.tenant_id, call.caller.user_id), call.new_id(call.now)
    # Followers that come at once begin at different places.
    first = sum(holder.encode()) % limit
    names = [f"p{(first + number) % limit}" for number in range(limit)]
    now = milliseconds(call.now)
    for _ in range(limit + 1):
        place = FollowerPlace(where, names[0], holder, _said(call.now, holder))
        path = Path(place.name)
        never_taken = path.does_not_exist()
        is_past = path < f"{now:015d}"
        # The answer to this very write may have been lost.
        is_ours = path == place.says
        if _write(place, any_of(never_taken, is_past, is_ours), call.now):
            return place
        raw = batch_get([where]).get(where)
        names = [name for name in names if not _is_taken(raw, name, now)]
        if not names:
            break
    raise RateLimited("followers", limit, PATIENCE_SECONDS)


def renew(place: FollowerPlace, now: datetime) -> FollowerPlace | None:
    """The place for longer; None when it was lost meanwhile.

    Raises ServiceUnavailable.
    """
    longer = replace(place, says=_said(now, place.holder))
    path = Path(place.name)
    is_still_ours = path == place.says
    was_renewed = path == longer.says
    return longer if _write(longer, any_of(is_still_ours, was_renewed), now) else None


def give_back(place: FollowerPlace) -> None:
    """Frees the place.

    Raises ServiceUnavailable; the place is free a while later then.
    """
    path = Path(place.name)
    update_one(FollowersItem(*place.where), [path.remove()], path == place.says, op="follow")


def taken(tenant_id: TenantId, user_id: UserId, now: datetime) -> int:
    """How many places of a user are taken."""
    where = keys.followers(tenant_id, user_id)
    raw = batch_get([where]).get(where) or {}
    return sum(_is_taken(raw, name, milliseconds(now)) for name in raw if name[1:].isdigit())


def _said(now: datetime, holder: str) -> str:
    return f"{milliseconds(now + timedelta(seconds=LEASE_SECONDS)):015d} {holder}"


def _write(place: FollowerPlace, condition: Condition, now: datetime) -> bool:
    actions = [Path(place.name).set(place.says), FollowersItem.expires_at.set(int((now + _KEPT).timestamp()))]
    return update_one(FollowersItem(*place.where), actions, condition, op="follow")


def _is_taken(raw: Raw | None, name: str, now: int) -> bool:
    return raw is not None and keys.text(raw, name, "") >= f"{now:015d}"
