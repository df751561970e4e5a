"""Tables read from end to end, for operators' commands. No request ever does this."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from pynamodb.connection.table import TableConnection

from minichat.domain.identity import TenantId, uuid7_floor
from minichat.storage import keys
from minichat.storage.items import Raw, answered, outbox_table, table


def items() -> Iterator[Raw]:
    """Every item of the conversation table, each as it was when its page was read, so the whole is no single moment.

    Raises ServiceUnavailable.
    """
    yield from _items(table())


def outbox(since: datetime, until: datetime) -> Iterator[Raw]:
    """Every event written from `since` to before `until`, those of one chat in their order.

    Raises ServiceUnavailable.
    """
    first, end = str(uuid7_floor(since)), str(uuid7_floor(until))
    yield from (item for item in _items(outbox_table()) if first <= item["sk"]["S"] < end)


def is_of(item: Raw, tenant_id: TenantId) -> bool:
    """Whether an item is a tenant's."""
    return bool(item["pk"]["S"].startswith(keys.prefix(tenant_id)))


def _items(of: TableConnection) -> Iterator[Raw]:
    start = None
    while True:
        page = answered(partial(of.scan, exclusive_start_key=start, consistent_read=True))
        yield from page["Items"]
        start = page.get("LastEvaluatedKey")
        if start is None:
            return
