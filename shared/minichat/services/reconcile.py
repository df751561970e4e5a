"""Proves that quota items say what the turns say, and names every difference."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from minichat.domain.identity import ChatId, TenantId, UserId
from minichat.domain.ledger import Account, Difference, Entry, account, booked, differences
from minichat.domain.turn import Turn
from minichat.storage import chats, quota, turns, whole

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


def reconcile(tenant_id: TenantId | None = None) -> Reconciled:
    """Compares the accounts of a tenant, or of all, with their turns. The service may go on working meanwhile.

    The table is read once; an account that seems to differ then is looked at by itself, between two equal readings of
    its item, before it is reported.
    Raises ServiceUnavailable.
    """
    sums: defaultdict[Account, _Sums] = defaultdict(_Sums)
    known: defaultdict[tuple[str, str], set[ChatId]] = defaultdict(set)
    count = 0
    for item in _items(tenant_id):
        if isinstance(item, Turn):
            count += 1
            sums[account(item)].turns_say.update(booked(item))
            known[item.tenant_id, item.requester_user_id].add(item.chat_id)
        else:
            where, says = item
            sums[where].says.update(says)
    found: list[Difference] = []
    undecided: list[Account] = []
    for where, seen in sums.items():
        if not differences(where, seen.says, seen.turns_say):
            continue
        standing_still = _looked_at(where, known[where.tenant_id, where.user_id])
        if standing_still is None:
            undecided.append(where)
        else:
            found += standing_still
    return Reconciled(count, len(sums), found, undecided)


def _items(tenant_id: TenantId | None) -> Iterator[Turn | tuple[Account, Counter[Entry]]]:
    for raw in whole.items():
        turn = turns.from_raw(raw) if raw["sk"]["S"].startswith("TURN#") else None
        if turn is not None:
            if tenant_id in (None, turn.tenant_id):
                yield turn
        elif (entries := quota.account(raw)) is not None and tenant_id in (None, entries[0].tenant_id):
            yield entries


def _looked_at(where: Account, known: Iterable[ChatId]) -> list[Difference] | None:
    """What differs in one account at one moment; None when it has no quiet moment."""
    tenant_id, user_id = TenantId(where.tenant_id), UserId(where.user_id)
    for _ in range(LOOKS):
        before = quota.entries(where)
        turns_say: Counter[Entry] = Counter()
        for chat_id in {*known, *chats.ids_of(tenant_id, user_id)}:
            for turn in turns.of_chat(tenant_id, chat_id):
                if account(turn) == where:
                    turns_say.update(booked(turn))
        if quota.entries(where) == before:
            return differences(where, before, turns_say)
    return None
