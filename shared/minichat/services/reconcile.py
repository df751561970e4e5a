"""Proves that quota items say what the turns say, and names every difference."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from minichat.domain import metering
from minichat.domain.identity import ChatId, TenantId, UserId
from minichat.domain.ledger import (
    Account,
    Difference,
    Entry,
    account,
    account_of_purged,
    booked,
    booked_by_purged,
    differences,
)
from minichat.domain.turn import Turn
from minichat.storage import chats, ledger, quota, turn_lists, turns, whole

LOOKS = 5
"""How often an account that moves while it is looked at is looked at again."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was compared and what differs; `undecided` are accounts that never stood still."""

    turns: int
    accounts: int
    differences: list[Difference]
    undecided: list[Account]


@dataclass(slots=True)
class _Sums:
    says: Counter[Entry] = field(default_factory=Counter)
    turns_say: Counter[Entry] = field(default_factory=Counter)
    turnless: list[metering.Entry] = field(default_factory=list)

    def should_say(self, turns_seen: Container[str] = ()) -> Counter[Entry]:
        """What the turns say, and the ledger of turns that were not seen: those of purged chats are in it alone."""
        gone = (booked_by_purged(entry) for entry in self.turnless if entry.turn_id not in turns_seen)
        return sum(gone, Counter(self.turns_say))


def reconcile(tenant_id: TenantId | None = None) -> Reconciled:
    """Compares the accounts of a tenant, or of all, with their turns. The service may go on working meanwhile.

    The table is read once; an account that seems to differ then is looked at by itself, between two equal readings of
    its item, before it is reported.
    Raises ServiceUnavailable.
    """
    sums: defaultdict[Account, _Sums] = defaultdict(_Sums)
    known: defaultdict[tuple[str, str], set[ChatId]] = defaultdict(set)
    seen_turns: set[str] = set()
    metered: list[metering.Entry] = []
    for item in _items(tenant_id):
        match item:
            case Turn():
                seen_turns.add(item.turn_id)
                sums[account(item)].turns_say.update(booked(item))
                known[item.tenant_id, item.requester_user_id].add(item.chat_id)
            case metering.Entry():
                metered.append(item)
            case (where, says):
                sums[where].says.update(says)
    for entry in metered:
        if entry.turn_id not in seen_turns and (gone := account_of_purged(entry)) is not None:
            sums[gone].turnless.append(entry)
    found: list[Difference] = []
    undecided: list[Account] = []
    for where, seen in sums.items():
        if not differences(where, seen.says, seen.should_say()):
            continue
        standing_still = _looked_at(where, known[where.tenant_id, where.user_id], seen.turnless)
        if standing_still is None:
            undecided.append(where)
        else:
            found += standing_still
    return Reconciled(len(seen_turns), len(sums), found, undecided)


def _items(tenant_id: TenantId | None) -> Iterator[Turn | metering.Entry | tuple[Account, Counter[Entry]]]:
    for raw in whole.items():
        turn = turns.from_raw(raw) if raw["sk"]["S"].startswith("TURN#") else None
        if turn is not None:
            if tenant_id in (None, turn.tenant_id):
                yield turn
        elif (entries := quota.account(raw)) is not None and tenant_id in (None, entries[0].tenant_id):
            yield entries
        elif (entry := ledger.entry_of(raw)) is not None and tenant_id in (None, entry.tenant_id):
            yield entry


def _looked_at(where: Account, known: set[ChatId], turnless: list[metering.Entry]) -> list[Difference] | None:
    """What differs in one account at one moment; None when it has no quiet moment."""
    tenant_id, user_id = TenantId(where.tenant_id), UserId(where.user_id)
    for _ in range(LOOKS):
        before = quota.entries(where)
        now, seen_turns = _Sums(turnless=turnless), set()
        for chat_id in {*known, *(entry.chat_id for entry in turnless), *chats.ids_of(tenant_id, user_id)}:
            for turn in turn_lists.of_chat(tenant_id, chat_id):
                seen_turns.add(turn.turn_id)
                if account(turn) == where:
                    now.turns_say.update(booked(turn))
        if quota.entries(where) == before:
            return differences(where, before, now.should_say(seen_turns))
    return None


def repair(found: Iterable[Difference]) -> int:
    """Has quota items say what the turns say; how many entries. What has moved since it was looked at is left as it is.

    Raises ServiceUnavailable.
    """
    by_account: defaultdict[Account, list[Difference]] = defaultdict(list)
    for difference in found:
        by_account[difference.account].append(difference)
    return sum(len(wrong) for where, wrong in by_account.items() if quota.correct(where, wrong))
