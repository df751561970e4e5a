"""A chat's one vector store at a provider: claimed, made and named, and in the end deleted there.

The claim comes before the store is made, and the cleanup of a deleted chat reads claims, too. A worker names a store
only while the claim is its own and no cleanup is through (`gone_at`); otherwise it takes back what it made. The
cleanup's writes require the id and the claim that it saw. So the second of the two notices the first, and no store is
left behind.
"""

from datetime import datetime

from pynamodb.expressions.condition import Condition

from minichat.domain.attachment import Attachment, VectorStore
from minichat.domain.identity import ChatId, TenantId
from minichat.storage import attachment_steps, keys, unreadable
from minichat.storage.attributes import InstantAttribute, UnicodeAttribute
from minichat.storage.conditions import all_of, any_of, is_still
from minichat.storage.items import ConversationItem, batch_get, between
from minichat.storage.keys import Raw
from minichat.storage.transact import Put, try_commit, update_one
from minichat.storage.unreadable import Unreadable

PAGE_ITEMS = 50


class VectorStoreItem(ConversationItem):
    """A chat's vector store at the provider in the key: claimed first, and named once the provider has made it."""

    vector_store_id = UnicodeAttribute(attr_name="vs", null=True)
    gone_at = InstantAttribute(null=True)
    claimed_by = UnicodeAttribute(attr_name="claimer", null=True)
    claimed_at = InstantAttribute(null=True)
    claimed_until = InstantAttribute(attr_name="until", null=True)


def from_raw(raw: Raw) -> VectorStore:
    """The vector store of a stored item."""
    item = VectorStoreItem.from_raw_data(dict(raw))
    tenant_id, chat_id = keys.chat_of(item.pk)
    return VectorStore(
        tenant_id=tenant_id,
        chat_id=chat_id,
        provider=item.sk.removeprefix(keys.VECTOR_STORE_PREFIX),
        vector_store_id=item.vector_store_id,
        gone_at=item.gone_at,
        claimed_by=item.claimed_by,
        claimed_at=item.claimed_at,
        claimed_until=item.claimed_until,
    )


def read(tenant_id: TenantId, chat_id: ChatId, provider: str) -> VectorStore | None:
    """The chat's vector store at a provider, gone or not.

    Raises ServiceUnavailable.
    """
    key = keys.vector_store(tenant_id, chat_id, provider)
    raw = batch_get([key]).get(key)
    return None if raw is None else from_raw(raw)


def of_chat(tenant_id: TenantId, chat_id: ChatId) -> list[VectorStore | Unreadable]:
    """The chat's vector stores, one per provider, those that are gone too.

    Raises ServiceUnavailable.
    """
    pk, prefix = keys.partition(tenant_id, chat_id), keys.VECTOR_STORE_PREFIX
    found = between(pk, prefix, prefix + "~", page=PAGE_ITEMS)
    return [unreadable.read(raw, from_raw) for raw in found]


def put(store: VectorStore) -> Put:
    """The write that records the chat's vector store at a provider; refused when there is one, or was."""
    item = VectorStoreItem(
        *keys.vector_store(store.tenant_id, store.chat_id, store.provider),
        vector_store_id=store.vector_store_id,
        claimed_by=store.claimed_by,
        claimed_at=store.claimed_at,
        claimed_until=store.claimed_until,
    )
    return Put("vector store", item, VectorStoreItem.pk.does_not_exist())


def claim(store: VectorStore, seen: Attachment, worker: str, *, token: str) -> bool:
    """Claims the chat's vector store for the attachment's worker; False when it is claimed, or the worker is too late.

    One transaction checks chat and attachment: once either is deleted, nobody claims a store that no cleanup would see.
    """
    writes = [put(store), *attachment_steps.while_working(seen, worker)]
    return try_commit(writes, token=token, op="ingest")


def take_over(seen: VectorStore, worker: str, until: datetime) -> bool:
    """Makes an expired claim this worker's.

    Even in a chat deleted meanwhile: its cleanup notices the new claim, and waits for its end.
    """
    changed = [VectorStoreItem.claimed_by.set(worker), VectorStoreItem.claimed_until.set(until)]
    same_claim = _is_claim_of(seen.claimed_by)
    # Of two workers that find it expired, the first changes its end, and the second is refused.
    same_end = is_still(VectorStoreItem.claimed_until, seen.claimed_until)
    # A repetition after a lost answer: refused, this worker would wait for its own claim to end.
    is_ours = _is_claim_of(worker)
    return update_one(_item(seen), changed, any_of(all_of(same_claim, same_end), is_ours), op="ingest")


def name(seen: VectorStore, worker: str, vector_store_id: str) -> bool:
    """Records the store that was made for a claim; False when it must be taken back."""
    changed = [VectorStoreItem.vector_store_id.set(vector_store_id)]
    return update_one(_item(seen), changed, _is_claim_of(worker), op="ingest")


def let_go(seen: VectorStore, worker: str, now: datetime) -> None:
    """Lets others take a claim over at once."""
    update_one(_item(seen), [VectorStoreItem.claimed_until.set(now)], _is_claim_of(worker), op="ingest")


def mark_gone(seen: VectorStore, at: datetime) -> bool:
    """Records that the provider no longer has the store; False when it was claimed again, named or gone meanwhile.

    Raises ServiceUnavailable.
    """
    is_there = VectorStoreItem.pk.exists()
    not_gone = VectorStoreItem.gone_at.does_not_exist()
    same_id = is_still(VectorStoreItem.vector_store_id, seen.vector_store_id)
    # A worker that takes over a dead claim makes the store that the provider did not have when asked.
    same_claimer = is_still(VectorStoreItem.claimed_by, seen.claimed_by)
    same_end = is_still(VectorStoreItem.claimed_until, seen.claimed_until)
    unchanged = all_of(is_there, not_gone, same_id, same_claimer, same_end)
    return update_one(_item(seen), [VectorStoreItem.gone_at.set(at)], unchanged, op="cleanup")


def _is_claim_of(worker: str | None) -> Condition:
    """The store is this worker's to make: claimed, not named, and nobody has recorded that there is none."""
    is_there = VectorStoreItem.pk.exists()
    unnamed = VectorStoreItem.vector_store_id.does_not_exist()
    # The cleanup is through, and would not see a store that is made now.
    not_gone = VectorStoreItem.gone_at.does_not_exist()
    is_theirs = is_still(VectorStoreItem.claimed_by, worker)
    return all_of(is_there, unnamed, not_gone, is_theirs)


def _item(seen: VectorStore) -> VectorStoreItem:
    return VectorStoreItem(*keys.vector_store(seen.tenant_id, seen.chat_id, seen.provider))
