"""Proves that the usage ledger and the audit trail say what the turns say, and names every difference.

Different functions write turns, ledger entries and audit records, one after the other: the records of a turn that just
ended may be on their way, so it is left out. A turn that disappeared with its chat leaves its entry behind.

Turns of living chats are kept for ever, ledger entries and totals only for a time, and DynamoDB removes expired items
late and in any order. So records close to their expiry, by their own times, are not compared.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import TenantId, UserId
from minichat.domain.quota_recount import account
from minichat.domain.turn import Turn, TurnState
from minichat.domain.usage_ledger import LedgerEntry, LedgerSums, Mismatch, Total, used_by
from minichat.observability import logger
from minichat.services.reconcile_reading import Books, read
from minichat.storage import keys, usage_ledger
from minichat.storage.unreadable import PROBLEMS

LOOKS = 5
"""How often a day whose totals change while they are read is read again."""
EXPIRY_MARGIN = timedelta(days=3)
"""Two days that DynamoDB may be late, and one day over which the records of a day expire."""
_ENDED = ("turn_completed", "turn_failed")

Day = tuple[TenantId, str]
Days = dict[Day, dict[UserId | None, LedgerSums]]


@dataclass(slots=True)
class Metered:
    """What was compared, what differs, and the days whose totals could not be read or kept changing."""

    turns: int = 0
    entries: int = 0
    days: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)


def prove(
    ended_before: datetime,
    tenant_id: TenantId | None = None,
    audited: Iterable[Mapping[str, Any]] | None = None,
    *,
    books: Books | None = None,
) -> Metered:
    """Compares turns that ended before an instant with their ledger entries, entries with totals, turns with `audited`.

    `ended_before` is a little ago; what expires within days of it is left out. `audited` are the records of the audit
    trail; without them it is not compared. Reads the `books` if none are given.
    Raises ServiceUnavailable when the table cannot be read.
    """
    books = read(tenant_id) if books is None else books
    ended = {
        key: turn
        for key, turn in books.turns.items()
        if turn.state is not TurnState.RUNNING and turn.completed_at is not None and turn.completed_at < ended_before
    }
    # The turn of an entry this old existed before the table was read.
    old_entries = [entry for entry in books.entries.values() if entry.settled_at < ended_before]
    days = _days_of(books.entries.values())
    metered = Metered(len(ended), len(books.entries), len(days))
    metered.mismatches += _of_entries(ended, books, ended_before + EXPIRY_MARGIN)
    metered.mismatches += _without_turn(books, old_entries)
    for day in _differing(days, books, ended_before + EXPIRY_MARGIN):
        found = _of_day(*day)
        metered.mismatches += found or []
        metered.undecided += [f"totals of {day[1]} of tenant {day[0]}"] if found is None else []
    if audited is not None:
        metered.mismatches += _of_audit(ended.values(), audited)
    return metered


def repair(found: Iterable[Mismatch], *, retention_days: int) -> int:
    """Sets the totals among them to the sum of their entries; how many. Totals that have changed since, and those that
    cannot be written now, are left as they are."""
    repaired = 0
    for one in found:
        try:
            repaired += one.total is not None and usage_ledger.correct(
                one.total, one.seen, retention_days=retention_days
            )
        except ServiceUnavailable:
            logger.exception("a total cannot be repaired", extra={"tenant_id": one.tenant_id, "where": one.where})
    return repaired


def _of_entries(ended: Mapping[str, Turn], books: Books, kept_beyond: datetime) -> Iterator[Mismatch]:
    """Turns whose entry says something else, or is missing though their account, which expires first, exists."""
    differing = {
        key: turn for key, turn in ended.items() if key not in books.entries or books.entries[key].used != used_by(turn)
    }
    # An entry may have been written since that page of the table was read.
    entries = usage_ledger.of_turns(differing.values())
    unreadable = {one.key for one in books.unreadable}
    for key, turn in differing.items():
        statement = books.statements.get(account(turn))
        is_kept = statement is not None and statement.kept_until is not None and statement.kept_until > kept_beyond
        says = entries[key].used if key in entries else None
        is_missing = is_kept and usage_ledger.key_of(turn) not in unreadable
        if says != (should := used_by(turn)) and (says is not None or is_missing):
            yield Mismatch(turn.tenant_id, f"ledger entry of turn {turn.turn_id}", _in_words(says), _in_words(should))


def _without_turn(books: Books, entries: Iterable[LedgerEntry]) -> Iterator[Mismatch]:
    """Entries whose turn is missing though its chat exists: only a deleted chat's turns disappear."""
    unreadable = {one.key for one in books.unreadable}
    for entry in entries:
        if entry.turn_id is None or entry.dedupe_key in books.turns or entry.chat_id not in books.living:
            continue
        if keys.turn(entry.tenant_id, entry.chat_id, entry.request_id) not in unreadable:
            where = f"ledger entry of turn {entry.turn_id}"
            yield Mismatch(entry.tenant_id, where, _in_words(entry.used), "nothing: there is no such turn")


def _days_of(entries: Iterable[LedgerEntry]) -> Days:
    days: Days = defaultdict(lambda: defaultdict(LedgerSums))
    for entry in entries:
        day = days[entry.tenant_id, entry.day]
        day[None] += entry.used
        if entry.user_id is not None:
            day[entry.user_id] += entry.used
    return days


def _differing(days: Days, books: Books, kept_beyond: datetime) -> list[Day]:
    """The days whose totals are not the sum of their entries, except where something may have expired."""
    says: Days = defaultdict(dict)
    for total in books.totals:
        says[total.tenant_id, total.day][total.user_id] = total.used
    records: list[Total | LedgerEntry] = [*books.totals, *books.entries.values()]
    going = {
        (record.tenant_id, record.day)
        for record in records
        if record.kept_until is not None and record.kept_until <= kept_beyond
    }
    return [day for day in sorted({*days, *says} - going) if says.get(day) != days.get(day)]


def _of_day(tenant_id: TenantId, day: str) -> list[Mismatch] | None:
    """The differences between a day's totals and its entries at one moment; None when that cannot be decided."""
    try:
        for _ in range(LOOKS):
            before = {total.user_id: total.used for total in usage_ledger.totals(tenant_id, day, day)}
            should = _days_of(usage_ledger.entries(tenant_id, day)).get((tenant_id, day), {})
            if before == {total.user_id: total.used for total in usage_ledger.totals(tenant_id, day, day)}:
                return list(_in_day(tenant_id, day, before, should))
    except (ServiceUnavailable, *PROBLEMS):
        logger.exception("a day cannot be looked at", extra={"tenant_id": tenant_id, "day": day})
    return None


def _in_day(
    tenant_id: TenantId, day: str, says: Mapping[UserId | None, LedgerSums], should: Mapping[UserId | None, LedgerSums]
) -> Iterator[Mismatch]:
    for user_id in {**says, **should}:
        if says.get(user_id) != should.get(user_id):
            where = f"total of {day}" + (f" of user {user_id}" if user_id else "")
            total, seen = Total(tenant_id, day, user_id, should.get(user_id, LedgerSums())), says.get(user_id)
            yield Mismatch(tenant_id, where, _in_words(seen), _in_words(total.used), total, seen)


def _of_audit(ended: Iterable[Turn], audited: Iterable[Mapping[str, Any]]) -> Iterator[Mismatch]:
    records = Counter((one.get("tenant_id"), one.get("turn_id")) for one in audited if one.get("event_type") in _ENDED)
    for turn in ended:
        if (count := records[turn.tenant_id, turn.turn_id]) != 1:
            yield Mismatch(turn.tenant_id, f"audit trail of turn {turn.turn_id}", f"{count} ends", "1 end")


def _in_words(used: LedgerSums | None) -> str:
    if used is None:
        return "nothing"
    return (
        f"{used.turns} turns, {used.committed_micro} micro, {used.input_tokens}+{used.output_tokens} tokens, "
        f"{used.web_searches}+{used.code_interpreter_calls}+{used.file_searches} tool calls"
    )
