"""What one reading of the table found about turns and their cost: the input of reconciliation.

Each item is as it was when its page was read, so the whole is no single moment. An apparent difference is read again,
by itself, before it is reported.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from minichat.domain.chat import Chat
from minichat.domain.identity import ChatId, TenantId
from minichat.domain.quota_recount import QuotaAccount, Statement
from minichat.domain.turn import Turn
from minichat.domain.usage import dedupe_key
from minichat.domain.usage_ledger import LedgerEntry, Total
from minichat.storage import scan
from minichat.storage.keys import Raw
from minichat.storage.unreadable import Unreadable


@dataclass(slots=True)
class Books:
    """Turns and ledger entries by dedupe key, what the quota items say, the days' totals, the chats that are not
    deleted, and what could not be read."""

    turns: dict[str, Turn] = field(default_factory=dict)
    entries: dict[str, LedgerEntry] = field(default_factory=dict)
    statements: dict[QuotaAccount, Statement] = field(default_factory=dict)
    totals: list[Total] = field(default_factory=list)
    living: set[ChatId] = field(default_factory=set)
    unreadable: list[Unreadable] = field(default_factory=list)


def read(tenant_id: TenantId | None = None, items: Iterable[Raw] | None = None) -> Books:
    """The books of a tenant, or of all. Reads the table once, while the service may go on working.

    `items` are the table's, when one reading serves others, too.
    Raises ServiceUnavailable.
    """
    books = Books()
    for record in scan.records(tenant_id, items):
        match record:
            case Turn():
                books.turns[dedupe_key(record.tenant_id, record.turn_id, record.request_id)] = record
            case LedgerEntry():
                books.entries[record.dedupe_key] = record
            case Statement():
                books.statements[record.account] = record
            case Total():
                books.totals.append(record)
            case Chat(deleted_at=None):
                books.living.add(record.chat_id)
            case Unreadable():
                books.unreadable.append(record)
    return books
