"""The end of a deleted chat's items: they expire, and DynamoDB removes what has expired at no cost."""

from datetime import datetime

from minichat.domain.identity import ChatId, TenantId
from minichat.storage import keys
from minichat.storage.items import ConversationItem, ExpiringItem, query
from minichat.storage.transact import update_one

BATCH = 100


def expire(tenant_id: TenantId, chat_id: ChatId, at: datetime) -> int:
    """Has every item of a chat expire at that instant, unless it does before; the head is the last. Returns how many.

    Can be broken off and begun again: what has its time is passed over.
    Raises ServiceUnavailable.
    """
    pk, moment = keys.partition(tenant_id, chat_id), int(at.timestamp())
    lives_on = ExpiringItem.pk.exists() & (
        ExpiringItem.expires_at.does_not_exist() | (ExpiringItem.expires_at > moment)
    )
    marked, after, more = 0, " ", True
    while more:
        page, more = query(pk, ConversationItem.sk > after, limit=BATCH)
        for raw in page:
            after = raw["sk"]["S"]
            if after != keys.CHAT_SK and int(raw.get("expires_at", {}).get("N", moment + 1)) > moment:
                item = ExpiringItem(pk, after)
                marked += update_one(item, [ExpiringItem.expires_at.set(moment)], lives_on, op="purge")
    head = ExpiringItem(*keys.chat(tenant_id, chat_id))
    return marked + update_one(head, [ExpiringItem.expires_at.set(moment)], lives_on, op="purge")
