"""Quota items: one per user and month, with its days inside; every change is part of a turn's transaction.

    turns                 turns that began in the month: who recomputes the rest knows by it whether all were found
    total, total_r        micro-credits committed in the month (spent + reserved), and those that are only reserved
    premium, premium_r    the same of premium turns, which count in both
    21t, 21p              committed on the 21st, in total and by premium turns
    21w, 21c              committed on the 21st: web searches and code interpreter calls, made and reserved

A limit is a condition on what is committed, so a day needs no more than that, and a whole month stays below 1 KB: one
write of two units does for both periods (turns-and-quota 4 and 6, docs/decisions/0006-data-model.md).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal

from pynamodb.attributes import NumberAttribute
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action

from minichat.domain.errors import CreditsTaken
from minichat.domain.identity import TenantId, UserId, from_seconds
from minichat.domain.ledger import TURNS, Account, Difference, Entry, Statement, named
from minichat.domain.policy import UserLimits
from minichat.domain.quota import periods
from minichat.domain.settlement import Ending, Settlement
from minichat.domain.standing import Committed, Standing, limit_of
from minichat.domain.turn import ToolCalls, Turn
from minichat.storage import keys
from minichat.storage.items import ConversationItem, Raw, batch_get
from minichat.storage.keys import Key
from minichat.storage.transact import Update, update_one


class QuotaItem(ConversationItem):
    """One user's credits in one month, per bucket: what is committed (spent + reserved) and, of it, reserved.

    Its days are in the same item, as attributes that storage.quota names: one write for both periods.
    """

    begun = NumberAttribute(attr_name="turns", null=True)
    total = NumberAttribute(null=True)
    total_reserved = NumberAttribute(attr_name="total_r", null=True)
    premium = NumberAttribute(null=True)
    premium_reserved = NumberAttribute(attr_name="premium_r", null=True)
    calls = NumberAttribute(null=True)
    input_tokens = NumberAttribute(attr_name="in", null=True)
    output_tokens = NumberAttribute(attr_name="out", null=True)
    expires_at = NumberAttribute(null=True)


DailyCounter = Literal["t", "p", "w", "c"]
"""What is counted per day: total and premium micro-credits, web searches, code interpreter calls."""


_DAILY = {"t": "total", "p": "premium", "w": "web searches", "c": "code interpreter calls"}
_TOOLS: Sequence[tuple[DailyCounter, str]] = (("w", "web_search"), ("c", "code_interpreter"))
"""The counters of calls of tools, and what these are called in ToolCalls and as the scope of a quota."""
_MONTHLY = {
    "begun": TURNS,
    "total": "total",
    "total_reserved": "total reserved",
    "premium": "premium",
    "premium_reserved": "premium reserved",
    "calls": "calls",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
}


def key(tenant_id: TenantId, user_id: UserId, now: datetime) -> Key:
    """Where a user's quota of this month is."""
    _, month = periods(now)
    return keys.quota(tenant_id, user_id, month)


def standing(limits: UserLimits, raw: Raw | None, now: datetime) -> Standing:
    """Where a user stands today and this month, from the month's item."""
    if raw is None:
        return Standing(limits)
    today, _ = periods(now)
    daily = Committed(*(count(raw, today, counter) for counter in ("t", "p", "w", "c")))
    item = QuotaItem.from_raw_data(dict(raw))
    return Standing(limits, daily, Committed(int(item.total or 0), int(item.premium or 0)))


def count(raw: Mapping[str, Mapping[str, Any]], day: str, counter: DailyCounter) -> int:
    """One counter of a day (`2026-11-21`) of a month's item."""
    return int(raw.get(_name(day, counter), {"N": "0"})["N"])


def read(tenant_id: TenantId, user_id: UserId, limits: UserLimits, now: datetime) -> Standing:
    """Where a user stands, in one consistent read."""
    where = key(tenant_id, user_id, now)
    return standing(limits, batch_get([where]).get(where), now)


def entries(where: Account) -> Counter[Entry] | None:
    """Everything that an account's item says, in one consistent read; None when there is none (any more)."""
    where_ = keys.quota(TenantId(where.tenant_id), UserId(where.user_id), where.month)
    raw = batch_get([where_]).get(where_)
    return None if raw is None else _entries(where.month, raw)


def statement(raw: Raw) -> Statement:
    """What a stored quota item says."""
    tenant_id, user_id = raw["pk"]["S"].removeprefix("T#").split("#U#")
    month = raw["sk"]["S"].removeprefix(keys.QUOTA_PREFIX)
    expires_at = QuotaItem.from_raw_data(dict(raw)).expires_at
    kept_until = None if expires_at is None else from_seconds(int(expires_at))
    return Statement(Account(tenant_id, user_id, month), _entries(month, raw), kept_until)


def correct(where: Account, wrong: Sequence[Difference]) -> bool:
    """Sets entries of an account to what the turns say; False when one of them is not as it was seen any more.

    What moved and came back to the same number did not move: entries only change by sums.
    Raises ServiceUnavailable.
    """
    item = QuotaItem(*keys.quota(TenantId(where.tenant_id), UserId(where.user_id), where.month))
    actions, unmoved = [], QuotaItem.pk.exists()
    for difference in wrong:
        path = Path(_attribute(difference.period, difference.counted))
        seen = path == difference.says
        unmoved &= seen if difference.says else seen | path.does_not_exist()
        actions.append(path.set(difference.turns_say))
    return update_one(item, actions, unmoved, op="reconcile")


def _attribute(period: str, counted: str) -> str:
    if period == named(period):
        name = next(name for name, told in _MONTHLY.items() if told == counted)
        return str(getattr(QuotaItem, name).attr_name)
    return f"{period[-2:]}{next(letter for letter, told in _DAILY.items() if told == counted)}"


def _entries(month: str, raw: Raw) -> Counter[Entry]:
    item = QuotaItem.from_raw_data(dict(raw))
    found: Counter[Entry] = Counter()
    for attribute, counted in _MONTHLY.items():
        found[named(month), counted] = int(getattr(item, attribute) or 0)
    for name, value in raw.items():
        if name[:2].isdigit() and name[2:] in _DAILY:
            found[f"{month[:-2]}{name[:2]}", _DAILY[name[2:]]] = int(value["N"])
    return found


def reserve(turn: Turn, limits: UserLimits, calls_per_day: ToolCalls, *, retention_days: int) -> Update:
    """The write that sets the turn's worst case aside, in both periods and every bucket it counts in, and the most
    calls of tools that it may make.

    It refuses when another turn of the user has taken the credits or the calls since they were read: reserves of
    parallel turns never add up to more than a limit.
    """
    change = _change(turn, reserved=turn.reserve.credits_micro, spent=0)
    change += [QuotaItem.begun.add(1), *_calls(turn, ToolCalls(), _reserved_calls(turn))]
    return _update(turn, change, retention_days, _room(turn, limits, calls_per_day))


def taken(turn: Turn, raw: Raw | None, calls_per_day: ToolCalls) -> CreditsTaken:
    """Why the item, as it was then, had no room for the turn's reserve."""
    for counter, tool in _TOOLS:
        wanted = getattr(_reserved_calls(turn), tool)
        used = count(raw or {}, turn.reserve.daily_period, counter)
        if wanted and used > getattr(calls_per_day, tool) - wanted:
            return CreditsTaken(tool)
    return CreditsTaken()


def settle(turn: Turn, settlement: Settlement, ending: Ending, *, retention_days: int) -> Update:
    """The write that turns the reserve into what was committed, in the periods that the turn began in.

    Calls that were set aside and not made are given back.
    """
    actions = _change(turn, reserved=-turn.reserve.credits_micro, spent=settlement.committed_micro)
    actions += [
        QuotaItem.calls.add(1),
        QuotaItem.input_tokens.add(ending.usage.input_tokens),
        QuotaItem.output_tokens.add(ending.usage.output_tokens),
    ]
    actions += _calls(turn, _reserved_calls(turn), ending.tool_calls)
    return _update(turn, actions, retention_days)


def _reserved_calls(turn: Turn) -> ToolCalls:
    return ToolCalls(turn.reserve.web_search_calls, turn.reserve.code_interpreter_calls)


def _calls(turn: Turn, before: ToolCalls, after: ToolCalls) -> list[Action]:
    """What it takes that the turn counts with the calls of after instead of those of before."""
    changes = [(counter, getattr(after, tool) - getattr(before, tool)) for counter, tool in _TOOLS]
    return [_daily(turn, counter).add(change) for counter, change in changes if change]


def _room(turn: Turn, limits: UserLimits, calls_per_day: ToolCalls) -> Condition:
    reserved = turn.reserve.credits_micro
    total, today = QuotaItem.total, _daily(turn, "t")
    room: Condition = total.does_not_exist() | (total <= limit_of(limits, "total", "monthly") - reserved)
    room &= today.does_not_exist() | (today <= limit_of(limits, "total", "daily") - reserved)
    if turn.reserve.premium:
        premium, today = QuotaItem.premium, _daily(turn, "p")
        room &= premium.does_not_exist() | (premium <= limit_of(limits, "premium", "monthly") - reserved)
        room &= today.does_not_exist() | (today <= limit_of(limits, "premium", "daily") - reserved)
    for counter, tool in _TOOLS:
        if calls := getattr(_reserved_calls(turn), tool):
            today, most = _daily(turn, counter), getattr(calls_per_day, tool)
            room &= today.does_not_exist() | (today <= most - calls)
    return room


def _change(turn: Turn, *, reserved: int, spent: int) -> list[Action]:
    committed = reserved + spent
    actions: list[Action] = [
        QuotaItem.total.add(committed),
        QuotaItem.total_reserved.add(reserved),
        _daily(turn, "t").add(committed),
    ]
    if turn.reserve.premium:
        actions += [
            QuotaItem.premium.add(committed),
            QuotaItem.premium_reserved.add(reserved),
            _daily(turn, "p").add(committed),
        ]
    return actions


def _daily(turn: Turn, counter: DailyCounter) -> Path:
    return Path(_name(turn.reserve.daily_period, counter))


def _name(day: str, counter: DailyCounter) -> str:
    return f"{day[-2:]}{counter}"


def _update(turn: Turn, actions: list[Action], retention_days: int, condition: Condition | None = None) -> Update:
    month = turn.reserve.monthly_period
    item = QuotaItem(*keys.quota(turn.tenant_id, turn.requester_user_id, month))
    kept_until = date.fromisoformat(month) + timedelta(days=retention_days)
    expires_at = int((kept_until - date(1970, 1, 1)).total_seconds())
    return Update("quota", item, [*actions, QuotaItem.expires_at.set(expires_at)], condition)
