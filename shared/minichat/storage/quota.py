"""Quota items: one per user and period; every change is part of a turn's transaction (turns-and-quota 4, 6)."""

from datetime import date, datetime, timedelta

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat.domain.identity import TenantId, UserId
from minichat.domain.policy import UserLimits
from minichat.domain.quota import periods
from minichat.domain.settlement import Ending, Settlement
from minichat.domain.standing import PERIODS, Committed, Period, Standing, limit_of
from minichat.domain.turn import Turn
from minichat.storage import keys
from minichat.storage.items import QuotaItem, Raw, batch_get
from minichat.storage.keys import Key
from minichat.storage.transact import Update


def read_keys(tenant_id: TenantId, user_id: UserId, now: datetime) -> dict[Period, Key]:
    """Where a user's quota of this day and this month is."""
    daily, monthly = periods(now)
    return {
        "daily": keys.quota(tenant_id, user_id, "daily", daily),
        "monthly": keys.quota(tenant_id, user_id, "monthly", monthly),
    }


def standing(limits: UserLimits, daily: Raw | None, monthly: Raw | None) -> Standing:
    """Where a user stands, from the items of both periods."""
    return Standing(limits, _committed(daily), _committed(monthly))


def read(tenant_id: TenantId, user_id: UserId, limits: UserLimits, now: datetime) -> Standing:
    """Where a user stands, in one consistent read."""
    where = read_keys(tenant_id, user_id, now)
    found = batch_get(where.values())
    return standing(limits, found.get(where["daily"]), found.get(where["monthly"]))


def reserve(turn: Turn, limits: UserLimits, *, retention_days: int) -> list[Update]:
    """The writes that set the turn's worst case aside, in both periods and every bucket it counts in.

    Each refuses when another turn of the user has taken the credits since they were read: reserves of parallel turns
    never add up to more than a limit.
    """
    change = _change(turn, reserved=turn.reserve.credits_micro, spent=0)
    return [_update(turn, period, change, retention_days, _room(turn, limits, period)) for period in PERIODS]


def _room(turn: Turn, limits: UserLimits, period: Period) -> Condition:
    reserved = turn.reserve.credits_micro
    total = QuotaItem.total_committed
    room: Condition = total.does_not_exist() | (total <= limit_of(limits, "total", period) - reserved)
    if turn.reserve.premium:
        premium = QuotaItem.premium_committed
        room &= premium.does_not_exist() | (premium <= limit_of(limits, "premium", period) - reserved)
    return room


def _committed(raw: Raw | None) -> Committed:
    if raw is None:
        return Committed()
    item = QuotaItem.from_raw_data(dict(raw))
    return Committed(int(item.total_committed or 0), int(item.premium_committed or 0), int(item.web_search_calls or 0))


def settle(turn: Turn, settlement: Settlement, ending: Ending, *, retention_days: int) -> list[Update]:
    """The writes that turn the reserve into what was committed, in the periods that the turn began in."""
    actions = _change(turn, reserved=-turn.reserve.credits_micro, spent=settlement.committed_micro)
    actions += [
        QuotaItem.calls.add(1),
        QuotaItem.input_tokens.add(ending.usage.input_tokens),
        QuotaItem.output_tokens.add(ending.usage.output_tokens),
    ]
    daily = [
        *actions,
        QuotaItem.web_search_calls.add(ending.tool_calls.web_search),
        QuotaItem.code_interpreter_calls.add(ending.tool_calls.code_interpreter),
    ]
    return [
        _update(turn, "daily", daily, retention_days),
        _update(turn, "monthly", actions, retention_days),
    ]


def _change(turn: Turn, *, reserved: int, spent: int) -> list[Action]:
    actions: list[Action] = [
        QuotaItem.total_reserved.add(reserved),
        QuotaItem.total_spent.add(spent),
        QuotaItem.total_committed.add(reserved + spent),
    ]
    if turn.reserve.premium:
        actions += [
            QuotaItem.premium_reserved.add(reserved),
            QuotaItem.premium_spent.add(spent),
            QuotaItem.premium_committed.add(reserved + spent),
        ]
    return actions


def _update(
    turn: Turn, period: Period, actions: list[Action], retention_days: int, condition: Condition | None = None
) -> Update:
    start = turn.reserve.daily_period if period == "daily" else turn.reserve.monthly_period
    item = QuotaItem(*keys.quota(turn.tenant_id, turn.requester_user_id, period, start))
    kept_until = date.fromisoformat(start) + timedelta(days=retention_days)
    expires_at = int((kept_until - date(1970, 1, 1)).total_seconds())
    return Update(f"{period} quota", item, [*actions, QuotaItem.expires_at.set(expires_at)], condition)
