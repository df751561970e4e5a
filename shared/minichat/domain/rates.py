"""Rates: how fast a user or a tenant may go, whatever credits are left. They stop a client that runs away (0019-rates).

Two kinds of limits: so many at once (turns, followers), and so many in a time (sends, uploads, chats). The second kind
is one number, the arrival that the rate would expect next (the generic cell rate algorithm): each arrival moves it on
by the interval between two, and one that would move it further ahead than the limit's whole time is refused. So a
limit's worth may come at once, and then one in each interval.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Literal

from minichat.domain.errors import RateLimited
from minichat.domain.identity import MICROSECOND

RateScope = Literal["turns_in_flight", "sends_per_minute", "followers", "uploads_per_hour", "chats_per_hour"]
Whose = Literal["user", "tenant"]

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
PATIENCE_SECONDS = 2
"""When to come back where nobody knows when a place gets free: a turn's, or a follower's."""
_MILLISECOND = 1000 * MICROSECOND
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of one user, and those of all users of a tenant together; 0 is none.

    A tenant's limits are soft: what is admitted at the same moment may exceed them.
    """

    turns_in_flight: int = 10
    sends_per_minute: int = 60
    followers: int = 20
    uploads_per_hour: int = 120
    chats_per_hour: int = 120
    tenant_turns_in_flight: int = 0
    tenant_sends_per_minute: int = 0

    @property
    def of_tenant(self) -> bool:
        """Whether turns of the tenant are counted at all."""
        return self.tenant_turns_in_flight > 0 or self.tenant_sends_per_minute > 0

    @property
    def sends(self) -> "Pace":
        """How fast a user may send, retry and edit."""
        return Pace("sends_per_minute", self.sends_per_minute, MINUTE)

    @property
    def uploads(self) -> "Pace":
        """How fast a user may give files to chats."""
        return Pace("uploads_per_hour", self.uploads_per_hour, HOUR)

    @property
    def chats(self) -> "Pace":
        """How fast a user may make chats."""
        return Pace("chats_per_hour", self.chats_per_hour, HOUR)


UNLIMITED = Rates(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Arrival:
    """How an arrival is written: the expected arrival becomes `becomes`, or moves on by `moves_on`, where what is
    stored (0 when absent) is not above `bound`, or is exactly what was `disbelieved`. All in milliseconds (since 1970).
    """

    bound: int
    becomes: int | None = None
    moves_on: int = 0
    disbelieved: int | None = None

    def after(self, expected: int) -> int | None:
        """What is stored after the arrival, where `expected` was; None when it is refused."""
        if expected > self.bound and expected != self.disbelieved:
            return None
        return self.becomes if self.becomes is not None else expected + self.moves_on


@dataclass(frozen=True, slots=True)
class Pace:
    """So many arrivals in a time; 0 is no limit."""

    scope: RateScope
    limit: int
    per: timedelta

    @property
    def interval(self) -> int:
        """Milliseconds between two arrivals at this pace; at least 1."""
        return max(self.per // _MILLISECOND // self.limit, 1)

    def arrival(self, expected: int, now: datetime) -> Arrival | None:
        """How an arrival is written where the stored expectation was `expected`; None without a limit.

        One that comes later than expected starts anew from `now`. It is written under the condition that this still
        holds: whoever loses that race finds an expectation that lies ahead, and only moves it on. One that lies further
        ahead than arrivals can move it was made by a clock that ran ahead: it counts for nothing.
        """
        if self.limit <= 0:
            return None
        instant = milliseconds(now)
        if expected > instant + 2 * self.interval * self.limit:
            return Arrival(instant, becomes=instant + self.interval, disbelieved=expected)
        if expected <= instant:
            return Arrival(instant, becomes=instant + self.interval)
        return Arrival(instant + (self.limit - 1) * self.interval, moves_on=self.interval)

    def check(self, expected: int, now: datetime) -> None:
        """Raises RateLimited when an arrival must wait, with the whole seconds until it need not."""
        arrival = self.arrival(expected, now)
        if arrival is not None and arrival.after(expected) is None:
            seconds = max(ceil((expected - arrival.bound) / 1000), 1)
            raise RateLimited(self.scope, self.limit, seconds)


@dataclass(frozen=True, slots=True)
class TenantUse:
    """Where a tenant stands: turns in flight, sends of the last minute, and names of counters that are over."""

    turns_in_flight: int = 0
    sends: int = 0
    over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RateUse:
    """Where a user stands: turns in flight, and when the next arrivals would be expected (milliseconds since 1970);
    where their tenant does; and the limits of both."""

    turns_in_flight: int = 0
    sends: int = 0
    uploads: int = 0
    chats: int = 0
    tenant: TenantUse = TenantUse()
    limits: Rates = UNLIMITED

    def check_send(self, now: datetime) -> None:
        """Raises RateLimited when another turn may not begin now."""
        limits, tenant = self.limits, self.tenant
        check_places("turns_in_flight", self.turns_in_flight, limits.turns_in_flight)
        limits.sends.check(self.sends, now)
        check_places("turns_in_flight", tenant.turns_in_flight, limits.tenant_turns_in_flight, "tenant")
        check_places("sends_per_minute", tenant.sends, limits.tenant_sends_per_minute, "tenant")


def check_places(scope: RateScope, taken: int, limit: int, whose: Whose = "user") -> None:
    """Raises RateLimited when no place is left of those that may be taken at once; a limit of 0 is none."""
    if 0 < limit <= taken:
        raise RateLimited(scope, limit, PATIENCE_SECONDS, whose)


def milliseconds(instant: datetime) -> int:
    """Milliseconds since 1970."""
    return (instant - _EPOCH) // _MILLISECOND
