"""The periods of a quota, days and months of UTC: their names, and when a limit begins anew (turns-and-quota 4, 7)."""

from datetime import UTC, date, datetime, time, timedelta
from math import ceil
from typing import Literal

from minichat.domain.errors import UsedUp

Period = Literal["daily", "monthly"]
PERIODS: tuple[Period, ...] = ("daily", "monthly")


def periods(now: datetime) -> tuple[str, str]:
    """Names of the daily and the monthly period of an instant, by its UTC date: 2026-11-21 and 2026-11-01."""
    return now.date().isoformat(), now.date().replace(day=1).isoformat()


def next_reset(period: Period, now: datetime) -> datetime:
    """The next UTC midnight, or the first of the next month."""
    today = now.astimezone(UTC).date()
    tomorrow = today + timedelta(days=1)
    next_month = date(today.year + today.month // 12, today.month % 12 + 1, 1)
    return datetime.combine(tomorrow if period == "daily" else next_month, time(), UTC)


def used_up(scope: str, period: Period, now: datetime, *, bucket: str | None = None, helps: bool) -> UsedUp:
    """A used-up limit, with the time of its reset when waiting `helps`."""
    if not helps:
        return UsedUp(scope, bucket, period)
    reset = next_reset(period, now)
    return UsedUp(scope, bucket, period, reset, max(ceil((reset - now).total_seconds()), 1))
