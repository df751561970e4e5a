"""Where a user stands: what is committed in each bucket and period, against its limit (turns-and-quota 4, 7).

Buckets are `total`, the ceiling over everything, and `premium`, a cap inside it. A premium turn counts in both.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from minichat.domain.day_counts import DayCounts
from minichat.domain.errors import UsedUp
from minichat.domain.policy import PolicyLimits, UserLimits
from minichat.domain.quota_periods import Period, next_reset, periods, used_up
from minichat.domain.rates import RateUse
from minichat.domain.turn import Reserve

Bucket = Literal["total", "premium"]
BUCKETS: tuple[Bucket, ...] = ("premium", "total")


@dataclass(frozen=True, slots=True)
class Committed:
    """Micro-credits spent and reserved in one period, and the numbers of a day."""

    total: int = 0
    premium: int = 0
    counts: DayCounts = field(default_factory=DayCounts)

    def changed(self, micro: int, reserve: Reserve) -> "Committed":
        """With `micro` more in every bucket that the reserve counts in."""
        return replace(self, total=self.total + micro, premium=self.premium + micro * reserve.premium)


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """One user's commitments and limits, as they were read."""

    limits: UserLimits
    daily: Committed = field(default_factory=Committed)
    monthly: Committed = field(default_factory=Committed)
    rates: RateUse = field(default_factory=RateUse)

    def fits(self, reserve: Reserve) -> bool:
        """Whether the reserve stays within every bucket that it counts in, in both periods."""
        return all(
            committed + reserve.credits_micro <= limit
            for bucket, _, committed, limit in self.entries()
            if bucket == "total" or reserve.premium
        )

    def lacks(self, reserve: Reserve, now: datetime) -> UsedUp:
        """Which limit of credits the reserve does not fit: of several, the one that resets last."""
        lacking = [
            used_up("tokens", period, now, bucket=bucket, helps=reserve.credits_micro <= limit)
            for bucket, period, committed, limit in self.entries()
            if committed + reserve.credits_micro > limit and (bucket == "total" or reserve.premium)
        ]
        never = datetime.max.replace(tzinfo=UTC)
        return max(lacking, key=lambda one: one.next_reset or never, default=UsedUp())

    def settled(self, reserve: Reserve, committed_micro: int, now: datetime) -> "QuotaUse":
        """Where the user stands at `now` once this reserve is settled; a period that is over is not touched."""
        change = committed_micro - reserve.credits_micro
        daily, monthly = periods(now)
        return replace(
            self,
            daily=self.daily.changed(change, reserve) if reserve.daily_period == daily else self.daily,
            monthly=self.monthly.changed(change, reserve) if reserve.monthly_period == monthly else self.monthly,
        )

    def entries(self) -> list[tuple[Bucket, Period, int, int]]:
        """Bucket, period, committed and limit, in micro-credits, in the order in which they are shown."""
        premium, total = self.limits.premium, self.limits.standard
        return [
            ("premium", "daily", self.daily.premium, premium.limit_daily_credits_micro),
            ("premium", "monthly", self.monthly.premium, premium.limit_monthly_credits_micro),
            ("total", "daily", self.daily.total, total.limit_daily_credits_micro),
            ("total", "monthly", self.monthly.total, total.limit_monthly_credits_micro),
        ]


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left in one bucket and period, as clients see it."""

    bucket: Bucket
    period: Period
    limit_micro: int
    used_micro: int
    next_reset: datetime
    warning: bool
    percentage: int

    @property
    def exhausted(self) -> bool:
        """Whether less than one per cent is left."""
        return self.percentage == 0


def remaining(quota_use: QuotaUse, warning_threshold_pct: int, now: datetime) -> list[Remaining]:
    """What is left everywhere: 79, 80 and 81 of 100 used leave 21 (no warning), 20 and 19 (warning) at 80 %.

    A limit of 0 is left out.
    """
    found = []
    for bucket, period, used, limit in quota_use.entries():
        if limit <= 0:
            continue
        percentage = max(limit - used, 0) * 100 // limit
        warning = percentage <= 100 - warning_threshold_pct
        found.append(Remaining(bucket, period, limit, used, next_reset(period, now), warning, percentage))
    return found


def limit_of(limits: UserLimits, bucket: Bucket, period: Period) -> int:
    """One limit, in micro-credits."""
    chosen: PolicyLimits = limits.standard if bucket == "total" else limits.premium
    return chosen.limit_daily_credits_micro if period == "daily" else chosen.limit_monthly_credits_micro
