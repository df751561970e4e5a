"""Quota items: one per user and month, with its days inside; every change is part of a turn's transaction.

    turns                 turns that began in the month: who recomputes the rest knows by it whether all were found
    total, total_r        micro-credits committed in the month (spent + reserved), and those that are only reserved
    premium, premium_r    the same of premium turns, which count in both
    21t, 21p              committed on the 21st, in total and by premium turns
    21w, 21c, 21f, 21i    committed on the 21st: web searches, code interpreter calls, searches in files, and images
                          that models look at, made and reserved
    21u, 21b              files that were given to chats on the 21st, and their bytes
    fly                   turns of the month that run
    s, u, c               when the next send, upload and new chat would be expected, in milliseconds since 1970
                          (domain.rates); in a new month they begin anew
    erase                 the erasure of its user, while there is one: nothing new begins then

A limit is a condition on what is committed, so a day needs no more than that, and a whole month stays below 1 KB: one
write of two units does for both periods (turns-and-quota 4 and 6, docs/decisions/0006-data-model.md).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any, Literal, TypeVar
from uuid import uuid4

from pynamodb.attributes import Attribute
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action

from minichat.domain.day_counts import DayCounts
from minichat.domain.erasure import BeingErased
from minichat.domain.errors import RateLimited
from minichat.domain.files import FileLimits
from minichat.domain.identity import TenantId, UserId, from_seconds
from minichat.domain.policy import UserLimits
from minichat.domain.quota_left import Committed, QuotaUse, limit_of
from minichat.domain.quota_periods import periods
from minichat.domain.quota_recount import COUNTED, IN_FLIGHT, TURNS, Difference, Entry, QuotaAccount, Statement, named
from minichat.domain.rates import Arrival, Pace, RateUse
from minichat.domain.settlement import Ending, Settlement
from minichat.domain.turn import Turn
from minichat.storage import keys
from minichat.storage.attributes import NumberAttribute, UnicodeAttribute
from minichat.storage.conditions import all_of, any_of, at_most, still_counts
from minichat.storage.items import ConversationItem, batch_get
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import Refused, Update, update_one

T = TypeVar("T")

ARRIVALS = 4
"""Attempts at most: by what is believed, by what was found, and once more where others were faster."""


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
    in_flight = NumberAttribute(attr_name="fly", null=True)
    sends = NumberAttribute(attr_name="s", null=True)
    uploads = NumberAttribute(attr_name="u", null=True)
    chats = NumberAttribute(attr_name="c", null=True)
    erased_by = UnicodeAttribute(attr_name="erase", null=True)
    expires_at = NumberAttribute(null=True)


@dataclass(frozen=True, slots=True)
class SendRate:
    """What a new turn must keep to: the most in flight (0: no limit), and how its arrival is written."""

    turns_in_flight: int = 0
    arrival: Arrival | None = None


DailyCounter = Literal["t", "p", "w", "c", "f", "i", "u", "b"]
"""What is counted per day: total and premium micro-credits, and what DayCounts has, in its order."""


_COUNTERS: dict[str, DailyCounter] = {
    "web_search": "w",
    "code_interpreter": "c",
    "file_search": "f",
    "image_inputs": "i",
    "uploads": "u",
    "upload_bytes": "b",
}
# Without the uploads, which no turn tells: what is left of them is in attachments, which go with their chats.
_DAILY = {"t": "total", "p": "premium"} | {_COUNTERS[scope]: told for scope, told in COUNTED.items()}
_MONTHLY = {
    "begun": TURNS,
    "in_flight": IN_FLIGHT,
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


def quota_use(limits: UserLimits, raw: Raw | None, now: datetime) -> QuotaUse:
    """Where a user stands today and this month, from the month's item."""
    if raw is None:
        return QuotaUse(limits)
    today, _ = periods(now)
    daily = Committed(count(raw, today, "t"), count(raw, today, "p"), counts(raw, today))
    item = QuotaItem.from_raw_data(dict(raw))
    return QuotaUse(limits, daily, Committed(int(item.total or 0), int(item.premium or 0)), rate_use(raw))


def rate_use(raw: Raw | None) -> RateUse:
    """How fast a user goes, from the month's item."""
    if raw is None:
        return RateUse()
    item = QuotaItem.from_raw_data(dict(raw))
    return RateUse(int(item.in_flight or 0), int(item.sends or 0), int(item.uploads or 0), int(item.chats or 0))


def count(raw: Mapping[str, Mapping[str, Any]], day: str, counter: DailyCounter) -> int:
    """One counter of a day (`2026-11-21`) of a month's item."""
    return int(raw.get(_name(day, counter), {"N": "0"})["N"])


def counts(raw: Raw, day: str) -> DayCounts:
    """The numbers of a day (`2026-11-21`) of a month's item."""
    return DayCounts(*(count(raw, day, _COUNTERS[member.name]) for member in fields(DayCounts)))


def read(tenant_id: TenantId, user_id: UserId, limits: UserLimits, now: datetime) -> QuotaUse:
    """Where a user stands, in one consistent read."""
    where = key(tenant_id, user_id, now)
    return quota_use(limits, batch_get([where]).get(where), now)


def entries(where: QuotaAccount) -> Counter[Entry] | None:
    """Everything that an account's item says, in one consistent read; None when there is none (any more)."""
    where_ = keys.quota(TenantId(where.tenant_id), UserId(where.user_id), where.month)
    raw = batch_get([where_]).get(where_)
    return None if raw is None else _entries(where.month, raw)


def statement(raw: Raw) -> Statement:
    """What a stored quota item says."""
    tenant_id, user_id = keys.user_of(keys.of(raw).pk)
    month = keys.of(raw).sk.removeprefix(keys.QUOTA_PREFIX)
    expires_at = QuotaItem.from_raw_data(dict(raw)).expires_at
    kept_until = None if expires_at is None else from_seconds(int(expires_at))
    return Statement(QuotaAccount(tenant_id, user_id, month), _entries(month, raw), kept_until)


def correct(where: QuotaAccount, wrong: Sequence[Difference]) -> bool:
    """Sets entries of an account to what the turns say; False when one of them is not as it was seen any more.

    What moved and came back to the same number did not move: entries only change by sums.
    Raises ServiceUnavailable.
    """
    item = QuotaItem(*keys.quota(TenantId(where.tenant_id), UserId(where.user_id), where.month))
    actions, is_there, unmoved = [], QuotaItem.pk.exists(), []
    for difference in wrong:
        path = Path(_attribute(difference.period, difference.counted))
        unmoved.append(still_counts(path, difference.says))
        actions.append(path.set(difference.turns_say))
    return update_one(item, actions, all_of(is_there, *unmoved), op="reconcile")


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


def reserve(turn: Turn, limits: UserLimits, per_day: DayCounts, rate: SendRate, *, retention_days: int) -> Update:
    """The write that sets the turn's worst case aside, in both periods and every bucket it counts in, its images, and
    the most calls of tools that it may make.

    It refuses when another turn of the user has taken the credits or the numbers since they were read: reserves of
    parallel turns never add up to more than a limit, nor are more of them in flight, or begin faster.
    """
    day, set_aside = turn.reserve.daily_period, turn.reserve.day_counts
    change = _change(turn, reserved=turn.reserve.credits_micro, spent=0)
    change += [QuotaItem.begun.add(1), QuotaItem.in_flight.add(turn.reserve.in_flight)]
    change += _counting(day, DayCounts(), set_aside)
    room = [_room(turn, limits), *_left(day, set_aside, per_day), _stays()]
    if rate.turns_in_flight > 0:
        room.append(at_most(QuotaItem.in_flight, rate.turns_in_flight - 1))
    if rate.arrival is not None:
        change.append(_arriving(QuotaItem.sends, rate.arrival))
        room.append(_may_arrive(QuotaItem.sends, rate.arrival))
    return _update(turn, change, retention_days, all_of(*room))


def _may_arrive(expected: Attribute[float], arrival: Arrival) -> Condition:
    in_time = at_most(expected, arrival.bound)
    if arrival.disbelieved is None:
        return in_time
    # By a clock that ran ahead; nobody has put it right since.
    still_wrong = expected == arrival.disbelieved
    return any_of(in_time, still_wrong)


def _arriving(expected: Attribute[float], arrival: Arrival) -> Action:
    moved: Action = expected.add(arrival.moves_on) if arrival.becomes is None else expected.set(arrival.becomes)
    return moved


def settle(turn: Turn, settlement: Settlement, ending: Ending, *, retention_days: int) -> Update:
    """The write that turns the reserve into what was committed, in the periods that the turn began in.

    Calls that were set aside and not made are given back, and images that no model was paid to look at.
    """
    actions = _change(turn, reserved=-turn.reserve.credits_micro, spent=settlement.committed_micro)
    actions += [
        QuotaItem.calls.add(1),
        QuotaItem.in_flight.add(-turn.reserve.in_flight),
        QuotaItem.input_tokens.add(ending.usage.input_tokens),
        QuotaItem.output_tokens.add(ending.usage.output_tokens),
    ]
    used = turn.reserve.used(ending.tool_calls, settlement.method)
    actions += _counting(turn.reserve.daily_period, turn.reserve.day_counts, used)
    return _update(turn, actions, retention_days)


def take(user: Key, day: str, taken: DayCounts, limits: FileLimits, arrival: Arrival | None) -> Update:
    """The write that takes numbers of a day for an upload that arrives; it refuses when others have left too few, or
    were faster.

    `user` is where the user's quota of that month is. More than a day has is not for this write to refuse.
    """
    actions, room = _counting(day, DayCounts(), taken), [*_left(day, taken, limits.per_day), _stays()]
    if arrival is not None:
        actions.append(_arriving(QuotaItem.uploads, arrival))
        room.append(_may_arrive(QuotaItem.uploads, arrival))
    return Update("quota", QuotaItem(*user), [*actions, _kept(user, limits.retention_days)], all_of(*room))


def new_chat(user: Key, arrival: Arrival | None, *, retention_days: int) -> Update:
    """The write of a new chat, and of its arrival where those count; it refuses when others were faster. `user` as for
    `take`."""
    actions, room = [_kept(user, retention_days)], [_stays()]
    if arrival is not None:
        actions.append(_arriving(QuotaItem.chats, arrival))
        room.append(_may_arrive(QuotaItem.chats, arrival))
    return Update("quota", QuotaItem(*user), actions, all_of(*room))


def stop(user: Key, erasure_id: str, *, retention_days: int) -> Update:
    """The write after which nothing of a user begins in a month: they are being erased. `user` as for `take`."""
    return Update("stop", QuotaItem(*user), [QuotaItem.erased_by.set(erasure_id), _kept(user, retention_days)])


def check_stays(raw: Raw | None) -> None:
    """Raises BeingErased when a month's item says so of its user."""
    if raw is not None and QuotaItem.erased_by.attr_name in raw:
        raise BeingErased


def _stays() -> Condition:
    # A send that has read no such word may meet it all the same: its own write decides.
    stays: Condition = QuotaItem.erased_by.does_not_exist()
    return stays


def arriving(pace: Pace, attempt: Callable[[int, str], T], *, first_token: str) -> T:
    """The result of a transaction with `take` or `new_chat` in it, which are written without a read before.

    `attempt` is made with what is believed to be stored, and the transaction's token: first that nothing is expected
    any more, and once that is refused, with what was found. It raises Refused, and whatever else it finds.
    """
    seen, token = 0, first_token
    for _ in range(ARRIVALS):
        try:
            return attempt(seen, token)
        except Refused as refused:
            if "quota" not in refused.old:
                raise
            # Another transaction, so another token.
            seen, token = _expected(pace, refused.old.get("quota")), str(uuid4())
    raise RateLimited(pace.scope, pace.limit, 1)


def check_pace(pace: Pace, raw: Raw | None, now: datetime) -> None:
    """Raises RateLimited when, by what a month's item says, an arrival must wait; BeingErased as `check_stays`."""
    pace.check(_expected(pace, raw), now)


def _expected(pace: Pace, raw: Raw | None) -> int:
    check_stays(raw)
    use = rate_use(raw)
    return use.uploads if pace.scope == "uploads_per_hour" else use.chats


def _kept(user: Key, retention_days: int) -> Action:
    kept: Action = QuotaItem.expires_at.set(_kept_until(user.sk.removeprefix(keys.QUOTA_PREFIX), retention_days))
    return kept


def give_back(user: Key, day: str, taken: DayCounts) -> Update:
    """The write that undoes `take`."""
    return Update("quota", QuotaItem(*user), _counting(day, taken, DayCounts()))


def _counting(day: str, before: DayCounts, after: DayCounts) -> list[Action]:
    """What it takes that the day counts what is after instead of what was before."""
    changes = [(letter, getattr(after, member) - getattr(before, member)) for member, letter in _COUNTERS.items()]
    return [Path(_name(day, letter)).add(change) for letter, change in changes if change]


def _left(day: str, wanted: DayCounts, per_day: DayCounts) -> Iterator[Condition]:
    """What must hold that the day has as much left as is wanted."""
    for member, letter in _COUNTERS.items():
        if more := getattr(wanted, member):
            yield at_most(Path(_name(day, letter)), getattr(per_day, member) - more)


def _room(turn: Turn, limits: UserLimits) -> Condition:
    reserved = turn.reserve.credits_micro
    in_month = at_most(QuotaItem.total, limit_of(limits, "total", "monthly") - reserved)
    in_day = at_most(_daily(turn, "t"), limit_of(limits, "total", "daily") - reserved)
    if not turn.reserve.premium:
        return all_of(in_month, in_day)
    # What a premium turn takes counts in both buckets.
    premium_in_month = at_most(QuotaItem.premium, limit_of(limits, "premium", "monthly") - reserved)
    premium_in_day = at_most(_daily(turn, "p"), limit_of(limits, "premium", "daily") - reserved)
    return all_of(in_month, in_day, premium_in_month, premium_in_day)


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
    kept = QuotaItem.expires_at.set(_kept_until(month, retention_days))
    return Update("quota", item, [*actions, kept], condition)


def _kept_until(month: str, retention_days: int) -> int:
    """When an item expires, in seconds since 1970."""
    kept_until = date.fromisoformat(month) + timedelta(days=retention_days)
    return int((kept_until - date(1970, 1, 1)).total_seconds())
