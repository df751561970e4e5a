"""The end of a deleted chat's items: they expire, and DynamoDB removes what has expired at no cost."""

from datetime import datetime

from minichat.domain.identity import ChatId, TenantId
from minichat.storage import keys
from minichat.storage.items import ExpiringItem, between
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
    marked = 0
    for raw in between(pk, " ", "~", page=BATCH):
        sk = raw["sk"]["S"]
        if sk != keys.CHAT_SK and int(raw.get("expires_at", {}).get("N", moment + 1)) > moment:
            marked += update_one(ExpiringItem(pk, sk), [ExpiringItem.expires_at.set(moment)], lives_on, op="purge")
    head = ExpiringItem(*keys.chat(tenant_id, chat_id))
    return marked + update_one(head, [ExpiringItem.expires_at.set(moment)], lives_on, op="purge")
