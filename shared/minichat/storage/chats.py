"""Chats: their heads, the index that lists them by activity, and their own mutations."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from uuid import uuid4

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from minichat.domain.chat import Chat
from minichat.domain.chat_visibility import visible
from minichat.domain.errors import ChatMoved, ChatNotFound
from minichat.domain.identity import Call, Caller, ChatId, MessageId, RequestId, TenantId, UserId
from minichat.domain.rates import Pace
from minichat.storage import idempotency_keys, keys, quota, unreadable
from minichat.storage.attributes import InstantAttribute, UnicodeAttribute
from minichat.storage.conditions import all_of, is_still
from minichat.storage.idempotency_keys import Once, OnceItem
from minichat.storage.indexes import ByOwner, Temporary
from minichat.storage.items import (
    ChatItem,
    OutboxItem,
    TurnItem,
    batch_get,
    entries,
    is_there,
    query,
)
from minichat.storage.keys import Key, Raw
from minichat.storage.transact import Put, Refused, Update, Write, commit, update_one
from minichat.storage.unreadable import Unreadable

ENDING_PAGE = 100
_CHAT = "chat"


class CreatedChatItem(OnceItem):
    """The chat that an idempotency key made, as it was when it was new."""

    chat_id = UnicodeAttribute(attr_name="chat")
    model = UnicodeAttribute()
    title = UnicodeAttribute(null=True)
    created_at = InstantAttribute()


def from_raw(raw: Raw | None) -> Chat | None:
    """The chat of a stored item."""
    return None if raw is None else _from_item(ChatItem.from_raw_data(dict(raw)))


def _from_item(item: ChatItem) -> Chat:
    tenant_id, chat_id = keys.chat_of(item.pk)
    return Chat(
        tenant_id=tenant_id,
        chat_id=chat_id,
        user_id=UserId(item.user_id),
        model=item.model,
        message_count=int(item.message_count),
        created_at=item.created_at,
        updated_at=item.updated_at,
        title=item.title,
        latest_request_id=RequestId(item.latest_request_id) if item.latest_request_id else None,
        running_request_id=RequestId(item.running_request_id) if item.running_request_id else None,
        last_message_at=item.last_message_at,
        summarized_up_to=MessageId(item.summarized_up_to) if item.summarized_up_to else None,
        deleted_at=item.deleted_at,
        ends_at=item.ends_at,
    )


def create(chat: Chat, pace: Pace, key: Once | None = None, *, retention_days: int) -> Chat:
    """Stores a new chat, listed for its owner unless it is temporary; or returns the one that the key made before, as
    it was when new.

    Raises IdempotencyKeyConflict when the key came with another request; RateLimited when the owner's new chats come
    too fast; BeingErased when the owner is; ChatMoved when the chat is there already.
    """
    user = quota.key(chat.tenant_id, chat.user_id, chat.created_at)

    def attempt(seen: int, token: str) -> Chat:
        counted = quota.new_chat(user, pace.arrival(seen, chat.created_at), retention_days=retention_days)
        try:
            return _create(chat, key, counted, token=token)
        except Refused as refused:
            quota.check_pace(pace, refused.old.get("quota"), chat.created_at)
            if _CHAT in refused.old:
                raise ChatMoved from refused
            raise

    # Ids that are derived from a client's key may come twice, and the transactions then differ.
    return quota.arriving(pace, attempt, first_token=str(uuid4()))


def _create(chat: Chat, key: Once | None, counted: Update, *, token: str) -> Chat:
    head = _put(chat)
    if key is None:
        commit([counted, head], token=token, op="create_chat", took_effect=partial(is_there, head.item))
        return chat
    item = CreatedChatItem(
        *keys.created(chat.tenant_id, chat.user_id, key.key),
        chat_id=chat.chat_id,
        model=chat.model,
        title=chat.title,
        created_at=chat.created_at,
    )
    writes: list[Write] = [counted, idempotency_keys.remember(item, key, chat.created_at), head]
    try:
        commit(writes, token=token, op="create_chat", took_effect=partial(is_there, head.item))
    except Refused as refused:
        if (first := idempotency_keys.made_before(refused, CreatedChatItem, key)) is None:
            raise
        return replace(
            chat,
            chat_id=ChatId(first.chat_id),
            model=first.model,
            title=first.title,
            created_at=first.created_at,
            updated_at=first.created_at,
        )
    return chat


def _put(chat: Chat) -> Put:
    item = ChatItem(
        *keys.chat(chat.tenant_id, chat.chat_id),
        user_id=chat.user_id,
        model=chat.model,
        title=chat.title,
        message_count=0,
        created_at=chat.created_at,
        updated_at=chat.updated_at,
        owner=(keys.owner_of_temporary if chat.is_temporary else keys.owner)(chat.tenant_id, chat.user_id),
        temporary_shard=keys.temporary_shard(chat.tenant_id, chat.chat_id) if chat.is_temporary else None,
        ends_at=chat.ends_at,
        listed_at=keys.listed_at(chat.tenant_id, chat.chat_id, chat.updated_at),
    )
    return Put(_CHAT, item, ChatItem.pk.does_not_exist())


def read(tenant_id: TenantId, chat_id: ChatId) -> Chat | None:
    """The head of a chat, deleted or not, in one consistent read."""
    key = keys.chat(tenant_id, chat_id)
    return from_raw(batch_get([key]).get(key))


def listed(caller: Caller, *, start: str | None, descending: bool, limit: int) -> list[tuple[str, Chat | None]]:
    """Up to `limit` of the caller's chats by activity after position `start`, each with its position.

    The index says where to look; the heads, read after it, say what is true: an index lags behind its table.
    """
    bound = start or ("~" if descending else "0")
    condition = ChatItem.listed_at < bound if descending else ChatItem.listed_at > bound
    owner = keys.owner(caller.tenant_id, caller.user_id)
    entries, _ = query(owner, condition, limit=limit, descending=descending, index=ByOwner.Meta.index_name)
    positions = {Key(entry["pk"]["S"], entry["sk"]["S"]): entry["listed_at"]["S"] for entry in entries}
    heads = batch_get(positions)
    return [(position, from_raw(heads.get(key))) for key, position in positions.items()]


def ids_of(tenant_id: TenantId, user_id: UserId) -> Iterator[ChatId]:
    """Ids of a user's chats, temporary ones too, as the index knows them: it lags, and deleted chats are not in it."""
    for where in (keys.owner(tenant_id, user_id), keys.owner_of_temporary(tenant_id, user_id)):
        for page in entries(ByOwner.Meta.index_name, where, ChatItem.listed_at > "0", page=1000):
            yield from (keys.chat_of(pk)[1] for pk, _ in page)


def ending(shard: str, now: datetime) -> Iterator[list[Chat | Unreadable]]:
    """Temporary chats of a shard (`keys.TEMPORARY_SHARDS`) whose `ends_at` has come, the oldest first, in pages.

    The index says where to look; the heads, read after it, say what is true. Raises ServiceUnavailable.
    """
    for where in entries(Temporary.Meta.index_name, shard, ChatItem.ends_at <= now, page=ENDING_PAGE):
        heads = batch_get(where)
        known = [unreadable.read(heads[key], from_raw) for key in where if key in heads]
        yield [one for one in known if isinstance(one, Unreadable) or (one and one.deleted_at is None)]


def postpone(seen: Chat, ends_at: datetime) -> bool:
    """Moves the next check of a used temporary chat to `ends_at`; False when somebody else did so, or deleted it.

    Raises ServiceUnavailable.
    """
    item = ChatItem(*keys.chat(seen.tenant_id, seen.chat_id))
    # Of two sweeps, only the first postpones.
    as_seen = is_still(ChatItem.ends_at, seen.ends_at)
    is_shown = ChatItem.deleted_at.does_not_exist()
    return update_one(item, [ChatItem.ends_at.set(ends_at)], all_of(as_seen, is_shown), op="postpone_chat")


def rename(caller: Caller, chat_id: ChatId, title: str, now: datetime) -> Chat:
    """The chat with its new title, moved to the front of its owner's list.

    Raises ChatNotFound when the caller has no such chat.
    """
    item = ChatItem(*keys.chat(caller.tenant_id, chat_id))
    titled = ChatItem.title.set(title)
    moved = [ChatItem.updated_at.set(now), ChatItem.listed_at.set(keys.listed_at(caller.tenant_id, chat_id, now))]
    moves_forward = ChatItem.updated_at < now
    if update_one(item, [titled, *moved], all_of(owned_by(caller), moves_forward), op="rename_chat"):
        return _from_item(item)
    # A chat that a faster clock moved stays where it is: chats never move back.
    if update_one(item, [titled], owned_by(caller), op="rename_chat"):
        return _from_item(item)
    raise ChatNotFound


def delete(call: Call, chat: Chat, events: Sequence[OutboxItem], *, token: str, unused: bool = False) -> bool:
    """Hides the chat, asks its running turn to stop, and publishes its events: one transaction.

    False when a turn began or ended since `chat` was read: the flag would miss the turn that runs now. With `unused`,
    also when anybody has used the chat since.
    Raises ChatNotFound when the chat was deleted meanwhile.
    """
    # The turn asked to stop, below, must be the running one.
    unchanged = [is_still(ChatItem.running_request_id, chat.running_request_id)]
    if unused:
        # Whatever its owner does with a chat moves it in the list.
        unchanged.append(is_still(ChatItem.updated_at, chat.updated_at))
    writes: list[Put | Update] = [
        Update(
            "chat",
            ChatItem(*keys.chat(chat.tenant_id, chat.chat_id)),
            [
                ChatItem.deleted_at.set(call.now),
                ChatItem.updated_at.set(call.now),
                ChatItem.owner.remove(),
                ChatItem.listed_at.remove(),
                ChatItem.temporary_shard.remove(),
            ],
            all_of(owned_by(call.caller), *unchanged),
        )
    ]
    if chat.running_request_id is not None:
        writes.append(
            Update(
                "turn",
                TurnItem(*keys.turn(chat.tenant_id, chat.chat_id, chat.running_request_id)),
                [TurnItem.cancel_requested_at.set(call.now)],
                TurnItem.pk.exists(),
            )
        )
    writes += [Put(f"event {number}", item) for number, item in enumerate(events)]
    try:
        commit(writes, token=token, op="delete_chat")
    except Refused as refused:
        visible(from_raw(refused.old.get("chat")), call.caller)
        return False
    return True


def is_alive() -> Condition:
    """The chat exists, and nobody has deleted it."""
    is_there = ChatItem.pk.exists()
    is_shown = ChatItem.deleted_at.does_not_exist()
    return all_of(is_there, is_shown)


def owned_by(caller: Caller) -> Condition:
    """The chat is alive, and the caller's; the tenant is in the key."""
    is_theirs = ChatItem.user_id == caller.user_id
    return all_of(is_alive(), is_theirs)


def nothing_new_in(chat: Chat) -> Condition:
    """No turn has begun since `chat` was read, not even one that is gone again."""
    same_latest = is_still(ChatItem.latest_request_id, chat.latest_request_id)
    # A turn that came and went leaves the same one the latest, but not the same time.
    same_time = is_still(ChatItem.last_message_at, chat.last_message_at)
    return all_of(same_latest, same_time)


def to_the_front(chat: Chat, now: datetime) -> list[Action]:
    """The actions that bring a chat to the front of its owner's list."""
    updated_at = max(now, chat.updated_at)
    return [
        ChatItem.updated_at.set(updated_at),
        ChatItem.listed_at.set(keys.listed_at(chat.tenant_id, chat.chat_id, updated_at)),
    ]


def running_in(head: Raw | None) -> RequestId | None:
    """The turn that runs, by what a stored head says."""
    chat = from_raw(head)
    return chat.running_request_id if chat else None
