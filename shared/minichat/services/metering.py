"""Proves that the usage ledger and the audit trail say what the turns say, and names every difference.

Turns, their ledger entries and their audit records are written one after the other, by different functions: what ended
a moment ago may be on its way, and is left out. A turn that disappeared with its chat leaves its entry behind.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from minichat.domain.identity import ChatId, TenantId, UserId
from minichat.domain.metering import Entry, Mismatch, Total, Used, used_by
from minichat.domain.turn import Turn, TurnState
from minichat.storage import chats, keys, ledger, turns, whole

LOOKS = 5
"""How often a day whose totals move while it is looked at is looked at again."""
_ENDED = ("turn_completed", "turn_failed")

Days = dict[tuple[TenantId, str], dict[UserId | None, Used]]


@dataclass(slots=True)
class Metered:
    """What was compared and what differs."""

    turns: int = 0
    entries: int = 0
    days: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


def prove(
    ended_before: datetime, tenant_id: TenantId | None = None, audited: Iterable[Mapping[str, Any]] | None = None
) -> Metered:
    """Compares turns that ended before an instant with their ledger entries, entries with totals, turns with `audited`.

    `audited` are the records of the audit trail; without them it is left out.
    Raises ServiceUnavailable.
    """
    turns_by_key: dict[str, Turn] = {}
    entries: dict[str, Entry] = {}
    alive: set[ChatId] = set()
    totals: list[Total] = []
    for raw in whole.items():
        if tenant_id is not None and not whole.is_of(raw, tenant_id):
            continue
        if raw["sk"]["S"].startswith("TURN#") and (turn := turns.from_raw(raw)) is not None:
            turns_by_key[_dedupe_key(turn)] = turn
        elif (chat := raw["sk"]["S"] == keys.CHAT_SK and chats.from_raw(raw)) and chat.deleted_at is None:
            alive.add(chat.chat_id)
        elif (entry := ledger.entry_of(raw)) is not None:
            entries[entry.dedupe_key] = entry
        elif (total := ledger.total_of(raw)) is not None:
            totals.append(total)
    ended = {
        key: turn
        for key, turn in turns_by_key.items()
        if turn.state is not TurnState.RUNNING and turn.completed_at is not None and turn.completed_at < ended_before
    }
    # An entry that is as old has a turn that was there before the table was read.
    old_entries = {key: entry for key, entry in entries.items() if entry.settled_at < ended_before}
    days = _days_of(entries.values())
    found = [*_of_entries(ended, entries), *_without_turn(turns_by_key, old_entries, alive), *_of_totals(days, totals)]
    if audited is not None:
        found += _of_audit(ended.values(), audited)
    return Metered(len(ended), len(entries), len(days), found)


def repair(found: Iterable[Mismatch], *, retention_days: int) -> int:
    """Sets the totals among them to the sum of their entries; how many. One that has moved since is left as it is.

    Raises ServiceUnavailable.
    """
    return sum(
        ledger.correct(one.total, one.seen, retention_days=retention_days) for one in found if one.total is not None
    )


def _dedupe_key(turn: Turn) -> str:
    return "/".join(part.replace("-", "") for part in (turn.tenant_id, turn.turn_id, turn.request_id))


def _of_entries(ended: Mapping[str, Turn], entries: Mapping[str, Entry]) -> Iterator[Mismatch]:
    for key, turn in ended.items():
        should = used_by(turn)
        says = entries[key].used if key in entries else None
        if says != should:
            yield Mismatch(turn.tenant_id, f"ledger entry of turn {turn.turn_id}", _in_words(says), _in_words(should))


def _without_turn(known: Mapping[str, Turn], entries: Mapping[str, Entry], alive: set[ChatId]) -> Iterator[Mismatch]:
    """Entries whose turn is not there, though its chat is: only a deleted chat's turns disappear."""
    for key, entry in entries.items():
        if entry.turn_id is not None and key not in known and entry.chat_id in alive:
            where = f"ledger entry of turn {entry.turn_id}"
            yield Mismatch(entry.tenant_id, where, _in_words(entry.used), "nothing: there is no such turn")


def _days_of(entries: Iterable[Entry]) -> Days:
    days: Days = defaultdict(lambda: defaultdict(Used))
    for entry in entries:
        day = days[entry.tenant_id, entry.day]
        day[None] += entry.used
        if entry.user_id is not None:
            day[entry.user_id] += entry.used
    return days


def _of_totals(days: Days, totals: Iterable[Total]) -> Iterator[Mismatch]:
    says: Days = defaultdict(dict)
    for total in totals:
        says[total.tenant_id, total.day][total.user_id] = total.used
    for tenant_id, day in sorted({*days, *says}):
        if says.get((tenant_id, day)) != days.get((tenant_id, day)):
            yield from _of_day(tenant_id, day)


def _of_day(tenant_id: TenantId, day: str) -> Iterator[Mismatch]:
    """What differs between a day's totals and its entries at one moment."""
    for _ in range(LOOKS):
        before = {total.user_id: total.used for total in ledger.totals(tenant_id, day, day)}
        should = _days_of(ledger.entries(tenant_id, day)).get((tenant_id, day), {})
        if before == {total.user_id: total.used for total in ledger.totals(tenant_id, day, day)}:
            for user_id in {**before, **should}:
                if before.get(user_id) != should.get(user_id):
                    where = f"total of {day}" + (f" of user {user_id}" if user_id else "")
                    total = Total(tenant_id, day, user_id, should.get(user_id, Used()))
                    seen = before.get(user_id)
                    yield Mismatch(tenant_id, where, _in_words(seen), _in_words(total.used), total, seen)
            return
    yield Mismatch(tenant_id, f"totals of {day}", "never stood still", "look again")


def _of_audit(ended: Iterable[Turn], audited: Iterable[Mapping[str, Any]]) -> Iterator[Mismatch]:
    records = Counter((one["tenant_id"], one["turn_id"]) for one in audited if one["event_type"] in _ENDED)
    for turn in ended:
        if (count := records[turn.tenant_id, turn.turn_id]) != 1:
            yield Mismatch(turn.tenant_id, f"audit trail of turn {turn.turn_id}", f"{count} ends", "1 end")


def _in_words(used: Used | None) -> str:
    if used is None:
        return "nothing"
    return (
        f"{used.turns} turns, {used.committed_micro} micro, {used.input_tokens}+{used.output_tokens} tokens, "
        f"{used.web_searches}+{used.code_interpreter_calls}+{used.file_searches} tool calls"
    )
