"""Quota items: one per user and period; every change is part of a turn's transaction (turns-and-quota 4, 6)."""

from datetime import date, timedelta
from typing import Literal

from pynamodb.expressions.update import Action

from minichat.domain.settlement import Ending, Settlement
from minichat.domain.turn import Turn
from minichat.storage import keys
from minichat.storage.items import QuotaItem
from minichat.storage.transact import Update

Period = Literal["daily", "monthly"]
PERIODS: tuple[Period, ...] = ("daily", "monthly")


def reserve(turn: Turn, *, retention_days: int) -> list[Update]:
    """The writes that set the turn's worst case aside, in both periods and every bucket it counts in."""
    return [
        _update(turn, period, _change(turn, reserved=turn.reserve.credits_micro, spent=0), retention_days)
        for period in PERIODS
    ]


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


def _update(turn: Turn, period: Period, actions: list[Action], retention_days: int) -> Update:
    start = turn.reserve.daily_period if period == "daily" else turn.reserve.monthly_period
    item = QuotaItem(*keys.quota(turn.tenant_id, turn.requester_user_id, period, start))
    kept_until = date.fromisoformat(start) + timedelta(days=retention_days)
    expires_at = int((kept_until - date(1970, 1, 1)).total_seconds())
    return Update(f"{period} quota", item, [*actions, QuotaItem.expires_at.set(expires_at)])
