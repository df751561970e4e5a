"""The items that an export is made of, page after page, in an order that stays: who goes on begins after a key.

A tenant's are read in the order of the table. A user's are read without a scan, because users ask for their own: the
account, the usage of days, and the chats in the order in which they were made, which use does not change.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from minichat.domain.export import DataExport
from minichat.domain.identity import TenantId, UserId, instant_of
from minichat.storage import chats, keys, scan
from minichat.storage.items import ConversationItem, batch_get, query
from minichat.storage.keys import Key, Raw

PAGE = 100
"""Items of a page: a query's has a megabyte at most, whatever is asked for (AWS limit)."""
SCANNED = 500
CLOCKS = timedelta(seconds=10)
"""By how much the clock of whoever made a chat may be ahead of that of whoever was asked for the export."""

Page = tuple[Sequence[Raw], Key]
"""Items, and the key after which the next page begins."""


def pages(export: DataExport, after: Key | None, *, usage_days: int) -> Iterator[Page]:
    """The items that may belong to an export, after a key; of usage, the last so many days.

    Raises ServiceUnavailable.
    """
    if export.user_id is None:
        yield from _of_table(export, after)
        return
    for pk in _partitions(export, export.user_id, after):
        start = after.sk if after is not None and after.pk == pk else " "
        if pk == keys.usage(export.tenant_id, "").pk:
            yield from _of_usage(export, export.user_id, start, usage_days)
        else:
            yield from _of_partition(pk, start)


def heads(found: Sequence[Raw]) -> dict[str, Raw]:
    """The heads of the chats that items are of, by partition.

    Raises ServiceUnavailable.
    """
    wanted = {keys.of(raw).pk for raw in found if keys.is_of_chat(keys.of(raw).pk)}
    return {key.pk: raw for key, raw in batch_get(Key(pk, keys.CHAT_SK) for pk in wanted).items()}


def what(key: Key) -> str:
    """What an item is: the first word of its sort key in a chat or an account, else where it is, with that word where
    it has versions. Nothing for what only belongs to another item."""
    place, word = keys.kind_of(key.pk), key.sk.split("#")[0]
    match place:
        case "C":
            # The text of a message of an earlier version lies right behind it.
            return "" if word == "MSG" and key.sk.count("#") > 1 else word
        case "U":
            return "" if key.sk.startswith("LIMITS#") else word
        case "P":
            return f"{key.pk.rpartition('#')[2]} {word}"
        case "AUTHORIZATION":
            return f"{place} {word}"
    return place


def version_of(key: Key) -> tuple[TenantId, int]:
    """The tenant of a stored version, and its number."""
    return keys.tenant_of(key.pk), int(key.sk.removeprefix("V#"))


def _of_table(export: DataExport, after: Key | None) -> Iterator[Page]:
    start: Key | None = after
    while True:
        found, start = scan.page_of(export.tenant_id, start, limit=SCANNED)
        if start is None:
            if found:
                yield found, keys.of(found[-1])
            return
        yield found, start


def _partitions(export: DataExport, user_id: UserId, after: Key | None) -> list[str]:
    if export.chat_id is not None:
        return [keys.partition(export.tenant_id, export.chat_id)]
    account, usage = keys.owner(export.tenant_id, user_id), keys.usage(export.tenant_id, "").pk
    # A chat that was made later is not in it, or an export might never end.
    until = export.requested_at + CLOCKS
    known = (one for one in chats.ids_of(export.tenant_id, user_id) if instant_of(UUID(one)) <= until)
    all_chats = sorted(keys.partition(export.tenant_id, one) for one in known)
    if after is None or after.pk == account:
        return [account, usage, *all_chats]
    if after.pk == usage:
        return [usage, *all_chats]
    return all_chats[bisect_left(all_chats, after.pk) :]


def _of_partition(pk: str, start: str) -> Iterator[Page]:
    more = True
    while more:
        found, more = query(pk, ConversationItem.sk > start, limit=PAGE)
        if found:
            start = keys.of(found[-1]).sk
            yield found, Key(pk, start)


def _of_usage(export: DataExport, user_id: UserId, start: str, days: int) -> Iterator[Page]:
    wanted = [keys.usage(export.tenant_id, day, user_id) for day in _days(export.requested_at, days)]
    wanted = [key for key in wanted if key.sk > start]
    found = batch_get(wanted)
    if wanted:
        yield [found[key] for key in wanted if key in found], wanted[-1]


def _days(until: datetime, days: int) -> list[str]:
    return [(until - timedelta(days=before)).date().isoformat() for before in range(days, -1, -1)]
