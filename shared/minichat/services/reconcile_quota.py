"""Proves that quota items say what the turns say, and names every difference.

A reading may find fewer turns than there are: a chat is too new for its index, turns disappeared with their chat and
their ledger entry came late, an item cannot be read. So each turn's own transaction counts it in its account, and an
account with fewer turns found is not judged. Absence is no proof.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import ChatId, TenantId, UserId
from minichat.domain.quota_recount import (
    Difference,
    Entry,
    QuotaAccount,
    account,
    account_of_purged,
    all_found,
    booked,
    booked_by_purged,
    differences,
)
from minichat.domain.turn import Turn
from minichat.domain.usage_ledger import LedgerEntry
from minichat.observability import logger
from minichat.services.reconcile_reading import Books, read
from minichat.storage import chats, quota, turn_lists, usage_ledger

LOOKS = 5
"""How often an account that changes while it is read is read again."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """An account that cannot be judged this time, and why."""

    account: QuotaAccount
    reason: str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was compared and what differs."""

    turns: int
    accounts: int
    differences: list[Difference]
    undecided: list[Undecided]


@dataclass(slots=True)
class _Known:
    """What the table's reading found for an account: its turns, the entries of deleted turns, and all chats with
    turns of its user."""

    chats: set[ChatId]
    turns: list[Turn] = field(default_factory=list)
    turnless: list[LedgerEntry] = field(default_factory=list)


def reconcile(tenant_id: TenantId | None = None, *, books: Books | None = None) -> Reconciled:
    """Compares the accounts of a tenant, or of all, with their turns; reads the `books` if none are given.

    An account that seems to differ is read again by itself, between two equal readings of its item. A difference counts
    when a second look, after all other accounts, confirms it. An account without an item has expired: not compared.
    Raises ServiceUnavailable when the table cannot be read; a single account that cannot be read is undecided.
    """
    books = read(tenant_id) if books is None else books
    accounts = _known(books)
    seeming = [
        where
        for where, statement in books.statements.items()
        if differences(where, statement.says, _sum(accounts[where].turns, accounts[where].turnless))
    ]
    first = {where: _looked_at(where, accounts[where]) for where in seeming}
    second = {
        where: _looked_at(where, accounts[where]) for where, seen in first.items() if isinstance(seen, list) and seen
    }
    found: list[Difference] = []
    undecided: list[Undecided] = []
    for where, seen in (first | second).items():
        if isinstance(seen, Undecided):
            undecided.append(seen)
        elif seen == first[where]:
            found += seen
        elif seen:
            undecided.append(Undecided(where, "two readings differ"))
    return Reconciled(len(books.turns), len(books.statements), found, undecided)


def repair(found: Iterable[Difference]) -> int:
    """Makes quota items say what the turns say; how many entries it set. Entries that have changed since, and those
    that cannot be written now, are left as they are."""
    by_account: defaultdict[QuotaAccount, list[Difference]] = defaultdict(list)
    for difference in found:
        by_account[difference.account].append(difference)
    repaired = 0
    for where, wrong in by_account.items():
        try:
            repaired += len(wrong) if quota.correct(where, wrong) else 0
        except ServiceUnavailable:
            logger.exception("an account cannot be repaired", extra={"account": str(where)})
    return repaired


def _known(books: Books) -> defaultdict[QuotaAccount, _Known]:
    chats_of: defaultdict[tuple[str, str], set[ChatId]] = defaultdict(set)
    accounts: defaultdict[QuotaAccount, _Known] = defaultdict(lambda: _Known(set()))
    for turn in books.turns.values():
        of_user = chats_of[turn.tenant_id, turn.requester_user_id]
        of_user.add(turn.chat_id)
        where = account(turn)
        accounts[where].chats = of_user
        accounts[where].turns.append(turn)
    for key, entry in books.entries.items():
        if key not in books.turns and (gone := account_of_purged(entry)) is not None:
            accounts[gone].turnless.append(entry)
    return accounts


def _looked_at(where: QuotaAccount, known: _Known) -> list[Difference] | Undecided:
    """What differs in one account at one moment, or why that cannot be said."""
    try:
        for _ in range(LOOKS):
            before = quota.entries(where)
            should = _should_say(where, known)
            if before is None:
                return []
            if should is None:
                return Undecided(where, "a turn of its user cannot be read")
            if quota.entries(where) == before:
                complete = all_found(where, before, should)
                return differences(where, before, should) if complete else Undecided(where, "turns of it are not found")
    except ServiceUnavailable:
        return Undecided(where, "the store did not answer")
    return Undecided(where, "it kept changing")


def _should_say(where: QuotaAccount, known: _Known) -> Counter[Entry] | None:
    """The sum of the turns that exist now, including those of chats newer than the table's reading, and of the entries
    of deleted turns; None when a turn cannot be read."""
    tenant_id, user_id = TenantId(where.tenant_id), UserId(where.user_id)
    turns: dict[str, Turn] = {}
    chats_now = {*known.chats, *(entry.chat_id for entry in known.turnless), *chats.ids_of(tenant_id, user_id)}
    for chat_id in chats_now:
        for turn in turn_lists.of_chat(tenant_id, chat_id):
            if not isinstance(turn, Turn):
                return None
            turns[turn.turn_id] = turn
    # Read after the turns: the entry of a turn that expired in between outlives it.
    gone = usage_ledger.of_turns(turn for turn in known.turns if turn.turn_id not in turns)
    turnless = {entry.dedupe_key: entry for entry in known.turnless if entry.turn_id not in turns} | gone
    return _sum((turn for turn in turns.values() if account(turn) == where), turnless.values())


def _sum(turns: Iterable[Turn], turnless: Iterable[LedgerEntry]) -> Counter[Entry]:
    total: Counter[Entry] = Counter()
    for turn in turns:
        total.update(booked(turn))
    for entry in turnless:
        total.update(booked_by_purged(entry))
    return total
