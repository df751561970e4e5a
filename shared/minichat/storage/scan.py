"""Full table scans, for operators' commands. No request ever makes one."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, EndpointConnectionError
from pynamodb.connection.table import TableConnection
from pynamodb.exceptions import ScanError

from minichat import greenlets
from minichat.domain.chat import Chat
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import ChatId, TenantId, uuid7_floor
from minichat.domain.quota_recount import Statement
from minichat.domain.turn import Turn
from minichat.domain.usage_ledger import LedgerEntry, Total
from minichat.pauses import growing
from minichat.storage import chats, keys, quota, turns, unreadable, usage_ledger
from minichat.storage.items import LARGEST_PAGE, ConversationItem, batch_get, between, outbox_table, table
from minichat.storage.keys import Key, Raw
from minichat.storage.unreadable import Unreadable

PATIENCE_SECONDS = 60
"""How long a page is retried: one throttle must not end the scan of a large table."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5
_PASSING = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
    }
)

Record = Turn | Chat | Statement | LedgerEntry | Total


def records(tenant_id: TenantId | None = None, found: Iterable[Raw] | None = None) -> Iterator[Record | Unreadable]:
    """Turns, heads of chats, quota, ledger and totals, of a tenant or of all; from the table, or among `found` items.

    Raises ServiceUnavailable.
    """
    for raw in items() if found is None else found:
        if (tenant_id is None or is_of(raw, tenant_id)) and (reader := _reader(raw)) is not None:
            yield unreadable.read(raw, reader)


def _reader(raw: Raw) -> Callable[[Raw], Any] | None:
    pk, sk = raw["pk"]["S"], raw["sk"]["S"]
    if sk.startswith(keys.TURN_PREFIX):
        return turns.from_raw
    if sk == keys.CHAT_SK:
        return chats.from_raw
    if sk.startswith(keys.QUOTA_PREFIX):
        return quota.statement
    kind = keys.kind_of(pk)
    if kind == "USAGE":
        return usage_ledger.total_of
    return usage_ledger.entry_of if kind == "L" else None


def items() -> Iterator[Raw]:
    """Every item of the conversation table, each as it was when its page was read, so the whole is no single moment.

    Raises ServiceUnavailable.
    """
    yield from _items(table())


def page_of(tenant_id: TenantId, start: Key | None, *, limit: int) -> tuple[list[Raw], Key | None]:
    """A tenant's items among the next `limit` of the table after `start`, and where the rest begins; None at its end.

    Raises ServiceUnavailable.
    """
    of_tenant = ConversationItem.pk.startswith(keys.prefix(tenant_id))
    page = _page(table(), None if start is None else start.raw, filter_condition=of_tenant, limit=limit)
    end = page.get("LastEvaluatedKey")
    return page["Items"], None if end is None else keys.of(end)


def of_kind(tenant_id: TenantId, chat_id: ChatId, prefix: str) -> list[Raw]:
    """The items of a chat whose sort keys begin so.

    Raises ServiceUnavailable.
    """
    return list(between(keys.partition(tenant_id, chat_id), prefix or " ", f"{prefix}~", page=LARGEST_PAGE))


def heads_of(partitions: Iterable[str]) -> set[str]:
    """Those of these partitions of chats that have a head.

    Raises ServiceUnavailable.
    """
    return {key.pk for key in batch_get(Key(pk, keys.CHAT_SK) for pk in partitions)}


def outbox(since: datetime, until: datetime) -> Iterator[Raw]:
    """Every event written from `since` to before `until`, those of one chat in their order.

    Raises ServiceUnavailable.
    """
    first, end = str(uuid7_floor(since)), str(uuid7_floor(until))
    yield from (item for item in _items(outbox_table()) if first <= item["sk"]["S"] < end)


def is_of(item: Raw, tenant_id: TenantId) -> bool:
    """Whether an item is a tenant's."""
    return bool(keys.of(item).pk.startswith(keys.prefix(tenant_id)))


def _items(of: TableConnection) -> Iterator[Raw]:
    start = None
    while True:
        page = _page(of, start)
        yield from page["Items"]
        start = page.get("LastEvaluatedKey")
        if start is None:
            return


def _page(of: TableConnection, start: Any, **more: Any) -> Any:
    deadline, pauses = time.monotonic() + PATIENCE_SECONDS, growing(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    while True:
        try:
            return of.scan(exclusive_start_key=start, consistent_read=True, **more)
        except ScanError as error:
            # If the first page cannot even connect, the caller learns it at once.
            nobody_there = start is None and isinstance(error.cause, EndpointConnectionError)
            passing = isinstance(error.cause, BotoCoreError) or error.cause_response_code in _PASSING
            if nobody_there or not passing or time.monotonic() > deadline:
                raise ServiceUnavailable from error
        greenlets.sleep(next(pauses))
