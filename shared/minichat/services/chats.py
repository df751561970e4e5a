"""Chats: create, read, rename, delete."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from minichat.domain.chat import Chat, clean_title, visible
from minichat.domain.errors import ServiceUnavailable
from minichat.domain.identity import Call, ChatId
from minichat.events.payloads import ChatCleanup, ChatDeleted
from minichat.services.rules import Rules
from minichat.storage import chats, outbox

DELETE_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class NewChat:
    """What the caller wants; with an idempotency key the same wish gives the same chat for 24 hours."""

    title: str | None = None
    model_id: str | None = None
    idempotency_key: str | None = None

    @property
    def fingerprint(self) -> str:
        """Differs when title or model do."""
        return hashlib.sha256(repr((self.title, self.model_id)).encode()).hexdigest()[:32]


def create(call: Call, wish: NewChat, rules: Rules) -> Chat:
    """A new chat of the caller; its model is chosen now and stays.

    Raises InvalidRequest (title), InvalidModel, IdempotencyKeyConflict, ChatNotFound (the key's, deleted meanwhile).
    """
    title = None if wish.title is None else clean_title(wish.title)
    model = rules.policy.model_for_new_chat(wish.model_id)
    chat = Chat(
        tenant_id=call.caller.tenant_id,
        chat_id=ChatId(call.new_id(call.now)),
        user_id=call.caller.user_id,
        model=model.id,
        message_count=0,
        created_at=call.now,
        updated_at=call.now,
        title=title,
    )
    if wish.idempotency_key is None:
        chats.create(chat, token=chat.chat_id)
        return chat
    first = chats.create_once(chat, chats.Once(wish.idempotency_key, wish.fingerprint), token=chat.chat_id)
    if first.chat_id != chat.chat_id:
        get(call, first.chat_id)
    return first


def get(call: Call, chat_id: ChatId) -> Chat:
    """One chat of the caller.

    Raises ChatNotFound.
    """
    return visible(chats.read(call.caller.tenant_id, chat_id), call.caller)


def rename(call: Call, chat_id: ChatId, title: str) -> Chat:
    """The chat with another title.

    Raises InvalidRequest (title), ChatNotFound.
    """
    return chats.rename(call.caller, chat_id, clean_title(title), call.now)


def delete(call: Call, chat_id: ChatId) -> None:
    """Hides a chat and everything in it, cancels its running turn, and has its resources cleaned up.

    Raises ChatNotFound.
    """
    for _ in range(DELETE_ATTEMPTS):
        chat = get(call, chat_id)
        events = (
            ChatDeleted(
                tenant_id=chat.tenant_id,
                timestamp=call.now,
                requester_type=call.caller.subject_type,
                trace_id=call.trace_id or None,
                chat_id=chat_id,
                actor_user_id=call.caller.user_id,
            ),
            to_be_cleaned(chat, call.now, call.new_id(call.now)),
        )
        items = [outbox.item(call, chat_id, event) for event in events]
        if chats.delete(call, chat, items, token=call.new_id(call.now)):
            return
    raise ServiceUnavailable


def to_be_cleaned(chat: Chat, deleted_at: datetime, task_id: str) -> ChatCleanup:
    """The event that has everything of a deleted chat go."""
    return ChatCleanup(
        tenant_id=chat.tenant_id,
        chat_id=chat.chat_id,
        user_id=chat.user_id,
        system_request_id=task_id,
        chat_deleted_at=deleted_at,
    )
