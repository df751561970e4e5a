"""What a user's quota must say, recomputed from the turns themselves (turns-and-quota 10, invariant 3): pure."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from minichat.domain.day_counts import DayCounts
from minichat.domain.identity import instant_of
from minichat.domain.quota_periods import periods
from minichat.domain.turn import Turn, TurnState

if TYPE_CHECKING:  # functions that only count quota need no metering
    from minichat.domain.usage_ledger import LedgerEntry

Entry = tuple[str, str]
"""A period and what is counted in it: `2026-11` or `2026-11-21`, and e.g. `total`, in micro-credits."""
COUNTED = {
    "web_search": "web searches",
    "code_interpreter": "code interpreter calls",
    "file_search": "file searches",
    "image_inputs": "image inputs",
}
"""The numbers of a day that turns record, by their scope. Uploads are not among them: see storage.quota."""
IN_FLIGHT = "turns in flight"
"""The entry of a month that counts those of its turns which run."""
TURNS = "turns"
"""The entry of a month that counts the turns which began in it."""


@dataclass(frozen=True, slots=True)
class QuotaAccount:
    """One user's quota of one month, named by its first day."""

    tenant_id: str
    user_id: str
    month: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What the item of an account says, and until when it is kept."""

    account: QuotaAccount
    says: Counter[Entry]
    kept_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry of an account that does not say what the turns say."""

    account: QuotaAccount
    period: str
    counted: str
    says: int
    turns_say: int


def account(turn: Turn) -> QuotaAccount:
    """Where the turn is booked: the month in which it began, even if it ended later."""
    return QuotaAccount(turn.tenant_id, turn.requester_user_id, turn.reserve.monthly_period)


def named(month: str) -> str:
    """A month by its name, `2026-11`: its first day is a period of its own."""
    return month[:7]


def booked(turn: Turn) -> Counter[Entry]:
    """Everything that the turn adds to its account: its reserve while it runs, what was committed once it ended."""
    month, day = named(turn.reserve.monthly_period), turn.reserve.daily_period
    running = turn.state is TurnState.RUNNING
    reserved = turn.reserve.credits_micro if running else 0
    committed = reserved + (turn.committed_credits_micro or 0)
    entries: Counter[Entry] = Counter({(month, TURNS): 1})
    entries.update(_counted(day, turn.day_counts))
    entries[month, IN_FLIGHT] = turn.reserve.in_flight if running else 0
    for bucket in ("total", "premium") if turn.reserve.premium else ("total",):
        entries[month, bucket] = entries[day, bucket] = committed
        entries[month, f"{bucket} reserved"] = reserved
    if not running:
        entries[month, "calls"] = 1
        entries[month, "input tokens"] = turn.usage.input_tokens
        entries[month, "output tokens"] = turn.usage.output_tokens
    return entries


def account_of_purged(entry: "LedgerEntry") -> QuotaAccount | None:
    """Where a turn purged with its chat was booked, from the usage ledger; None when no user asked for it."""
    if entry.user_id is None or entry.turn_id is None:
        return None
    # A turn's id holds the instant at which it began, and so the period that it counts in.
    return QuotaAccount(entry.tenant_id, entry.user_id, periods(instant_of(UUID(entry.turn_id)))[1])


def booked_by_purged(entry: "LedgerEntry") -> Counter[Entry]:
    """What a purged turn had added to its account."""
    day, month = periods(instant_of(UUID(entry.turn_id)))
    used = entry.used
    entries: Counter[Entry] = Counter({(named(month), TURNS): 1})
    for bucket in ("total", "premium") if entry.premium else ("total",):
        entries[named(month), bucket] = entries[day, bucket] = used.committed_micro
    entries[named(month), "calls"] = 1
    entries[named(month), "input tokens"] = used.input_tokens
    entries[named(month), "output tokens"] = used.output_tokens
    counts = DayCounts(used.web_searches, used.code_interpreter_calls, used.file_searches, used.image_inputs)
    entries.update(_counted(day, counts))
    return entries


def _counted(day: str, counts: DayCounts) -> Counter[Entry]:
    return Counter({(day, name): getattr(counts, scope) for scope, name in COUNTED.items()})


def differences(where: QuotaAccount, says: Counter[Entry], turns_say: Counter[Entry]) -> list[Difference]:
    """Every entry in which the two differ; what is absent is 0. The number of turns says only whether all are there."""
    return [
        Difference(where, *entry, says[entry], turns_say[entry])
        for entry in sorted(says.keys() | turns_say.keys())
        if says[entry] != turns_say[entry] and entry[1] != TURNS
    ]


def all_found(where: QuotaAccount, says: Counter[Entry], turns_say: Counter[Entry]) -> bool:
    """Whether every turn that the account counted when it began was found.

    More than it counted is no contradiction: earlier versions did not count.
    """
    turns = named(where.month), TURNS
    return turns_say[turns] >= says[turns]
