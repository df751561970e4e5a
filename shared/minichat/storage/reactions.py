"""Reactions: an attribute of the message, changed only if it is as it was read."""

from dataclasses import dataclass
from datetime import datetime

from pynamodb.expressions.update import Action

from minichat.domain.chat import Chat
from minichat.domain.identity import Call, ChatId, MessageId, RequestId, TenantId
from minichat.domain.message import Reaction, Role
from minichat.storage import chats, keys, messages
from minichat.storage.conditions import all_of, is_still
from minichat.storage.items import ChatItem, MessageItem, OutboxItem, batch_get
from minichat.storage.transact import Check, Put, Update, try_commit


@dataclass(frozen=True, slots=True)
class Reacted:
    """What reactions need of a visible message, and its owner's reaction to it."""

    chat_id: ChatId
    message_id: MessageId
    role: Role
    request_id: RequestId
    reaction: Reaction | None
    since: datetime | None


def read(tenant_id: TenantId, chat_id: ChatId, message_id: MessageId) -> tuple[Chat | None, Reacted | None]:
    """The chat's head and one of its visible messages, in one consistent round trip.

    Raises ServiceUnavailable.
    """
    chat_key, message_key = keys.chat(tenant_id, chat_id), keys.message(tenant_id, chat_id, message_id)
    found = batch_get([chat_key, message_key])
    chat = chats.from_raw(found.get(chat_key))
    if message_key not in found:
        return chat, None
    item = MessageItem.from_raw_data(dict(found[message_key]))
    if item.deleted_at is not None:
        return chat, None
    request_id = RequestId(item.request_id)
    return chat, Reacted(chat_id, message_id, item.role, request_id, item.reaction, item.reacted_at)


def write(call: Call, seen: Reacted, reaction: Reaction | None, event: OutboxItem) -> bool:
    """Replaces the reaction that was seen, or removes it; False when the message has changed since.

    Raises ServiceUnavailable.
    """
    tenant_id = call.caller.tenant_id
    item = MessageItem(*keys.message(tenant_id, seen.chat_id, seen.message_id))
    said = MessageItem.reaction
    # A turn deleted meanwhile takes its messages with it.
    is_there = messages.is_in_place()
    # Of two writers the second reads again, so that one reaction causes one event.
    as_seen = is_still(said, seen.reaction)
    actions: list[Action] = (
        [said.remove(), MessageItem.reacted_at.remove()]
        if reaction is None
        else [said.set(reaction), MessageItem.reacted_at.set(call.now)]
    )
    return try_commit(
        [
            Check("chat", ChatItem(*keys.chat(tenant_id, seen.chat_id)), chats.owned_by(call.caller)),
            Update("message", item, actions, all_of(is_there, as_seen)),
            Put("event", event),
        ],
        token=call.new_id(call.now),
        op="react",
    )
