"""The end of a deleted chat's items: they expire, and DynamoDB removes expired items at no cost.

An item that names something a provider may still have gets a later expiry, and so does the head, which leads to it: a
cleanup must find them, however late. No such item is added to a deleted chat.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from pynamodb.expressions.condition import Condition

from minichat.domain.cleanup import CleanupStatus
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import ChatId, TenantId
from minichat.observability import logger
from minichat.storage import keys
from minichat.storage.attachment_items import AttachmentItem
from minichat.storage.conditions import all_of, any_of
from minichat.storage.items import ChatItem, ExpiringItem, between
from minichat.storage.keys import Raw
from minichat.storage.transact import Rejected, patience, update_one
from minichat.storage.vector_stores import VectorStoreItem

BATCH = 100
SECONDS = 2
"""How long a write is retried: its caller comes again."""
_NEEDED = (keys.ATTACHMENT_PREFIX, keys.VECTOR_STORE_PREFIX)


def contents(tenant_id: TenantId, chat_id: ChatId, at: datetime) -> int:
    """Makes all items of a chat expire at that instant or before, except those that its cleanup needs; how many.

    Can be interrupted and started again: marked items are skipped.
    Raises ServiceUnavailable when an item could not be marked; all others are.
    """
    pk, moment = keys.partition(tenant_id, chat_id), int(at.timestamp())
    # An item that is removed meanwhile must not be created again, with nothing but its expiry.
    is_there = ExpiringItem.pk.exists()
    has_no_time = ExpiringItem.expires_at.does_not_exist()
    has_longer = ExpiringItem.expires_at > moment
    lives_on = all_of(is_there, any_of(has_no_time, has_longer))
    expires = [ExpiringItem.expires_at.set(moment)]

    def _mark(raw: Raw) -> bool:
        sk = raw["sk"]["S"]
        if sk == keys.CHAT_SK or sk.startswith(_NEEDED) or (_expires_at(raw) or moment + 1) <= moment:
            return False
        return update_one(ExpiringItem(pk, sk), expires, lives_on, op="purge")

    return _each(between(pk, " ", "~", page=BATCH), _mark)


def needed(tenant_id: TenantId, chat_id: ChatId, at: datetime, *, uncleaned_at: datetime) -> int:
    """Makes the items of a chat's cleanup expire at `at` if they are cleaned up, else at `uncleaned_at`; how many.

    The head comes last, and expires with the others. Can be interrupted and started again.
    Raises ServiceUnavailable as `contents` does; the head has no expiry then.
    """
    pk, all_gone = keys.partition(tenant_id, chat_id), True

    def _mark(raw: Raw) -> bool:
        nonlocal all_gone
        is_gone, still_so = _seen(raw)
        all_gone = all_gone and is_gone
        return _expires(raw, at if is_gone else uncleaned_at, still_so)

    found = (raw for prefix in _NEEDED for raw in between(pk, prefix, prefix + "~", page=BATCH))
    marked = _each(found, _mark)
    for raw in between(pk, keys.CHAT_SK, keys.CHAT_SK + "~", page=1):
        marked += _expires(raw, at if all_gone else uncleaned_at, ChatItem.deleted_at.exists())
    return marked


def _each(found: Iterable[Raw], mark: Callable[[Raw], bool]) -> int:
    """Marks each of the items; how many. An item that cannot be written does not stop the others.

    Raises ServiceUnavailable after the last item if one could not be written.
    """
    marked, failure = 0, None
    for raw in found:
        try:
            with patience(SECONDS):
                marked += mark(raw)
        except (ServiceUnavailable, Rejected) as problem:
            logger.warning("an item of a deleted chat cannot be given its time", extra={"sk": raw["sk"]["S"]})
            failure = problem
    if failure is not None:
        raise ServiceUnavailable from failure
    return marked


def _seen(raw: Raw) -> tuple[bool, Condition]:
    """Whether the provider has nothing left of what an item names, and the condition that this has not changed."""
    if raw["sk"]["S"].startswith(keys.VECTOR_STORE_PREFIX):
        is_gone, gone_at = "gone_at" in raw, VectorStoreItem.gone_at
        return is_gone, gone_at.exists() if is_gone else gone_at.does_not_exist()
    is_gone = raw.get("cleanup", {}).get("S") == CleanupStatus.DONE.value
    is_done = AttachmentItem.cleanup_status == CleanupStatus.DONE.value
    return is_gone, is_done if is_gone else ~is_done


def _expires(raw: Raw, at: datetime, still_so: Condition) -> bool:
    moment = int(at.timestamp())
    if _expires_at(raw) == moment:
        return False
    item = ExpiringItem(raw["pk"]["S"], raw["sk"]["S"])
    is_there = ExpiringItem.pk.exists()
    return update_one(item, [ExpiringItem.expires_at.set(moment)], all_of(is_there, still_so), op="purge")


def _expires_at(raw: Raw) -> int | None:
    return int(raw["expires_at"]["N"]) if "expires_at" in raw else None
