"""Chats: create, read, rename, delete; and the expiry of temporary ones."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from minichat.domain.chat import Chat, clean_title
from minichat.domain.chat_visibility import visible
from minichat.domain.errors import ChatNotFound, ServiceUnavailable
from minichat.domain.identity import Call, ChatId
from minichat.events.payloads import ChatCleanup, ChatDeleted, DeletionReason
from minichat.services.audit_details import by
from minichat.services.policy_in_force import Rules
from minichat.settings import Settings
from minichat.storage import chats, idempotency_keys, outbox

DELETE_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class NewChat:
    """What the caller wants; with an idempotency key the same wish gives the same chat for 24 hours."""

    title: str | None = None
    model_id: str | None = None
    idempotency_key: str | None = None
    temporary: bool = False


def create(call: Call, wish: NewChat, rules: Rules) -> Chat:
    """A new chat of the caller; its model is chosen now and stays, and so does whether it is temporary.

    Raises InvalidRequest (title), InvalidModel, IdempotencyKeyConflict, RateLimited, ChatNotFound (the key's chat was
    deleted, and is not made again: nobody asked for another).
    """
    chat = drafted(call, ChatId(call.new_id(call.now)), wish, rules)
    made = chats.create(chat, rules.rates.chats, _once(wish), retention_days=rules.settings.quota.retention_days)
    if made.chat_id != chat.chat_id:
        get(call, made.chat_id)
    return made


def drafted(call: Call, chat_id: ChatId, wish: NewChat, rules: Rules) -> Chat:
    """The chat as it would be made; nothing is written.

    Raises InvalidRequest (title), InvalidModel.
    """
    title = None if wish.title is None else clean_title(wish.title)
    model = rules.policy.model_for_new_chat(wish.model_id)
    return Chat(
        tenant_id=call.caller.tenant_id,
        chat_id=chat_id,
        user_id=call.caller.user_id,
        model=model.id,
        message_count=0,
        created_at=call.now,
        updated_at=call.now,
        title=title,
        ends_at=ends_at(call.now, rules.settings) if wish.temporary else None,
    )


def _once(wish: NewChat) -> idempotency_keys.Once | None:
    """The key, and what differs when the wish does."""
    if wish.idempotency_key is None:
        return None
    return idempotency_keys.of(
        wish.idempotency_key, wish.title, wish.model_id, *(["temporary"] if wish.temporary else [])
    )


def ends_at(used_at: datetime, settings: Settings) -> datetime:
    """When a temporary chat ends whose last use (created, sent to or renamed) was at that instant."""
    return used_at + timedelta(hours=settings.retention.temporary_chats_hours)


def get(call: Call, chat_id: ChatId) -> Chat:
    """One chat of the caller.

    Raises ChatNotFound.
    """
    return visible(chats.read(call.caller.tenant_id, chat_id), call.caller)


def rename(call: Call, chat_id: ChatId, title: str) -> Chat:
    """The chat with another title.

    Raises InvalidRequest (title), ChatNotFound, Forbidden (another's that the caller may see).
    """
    cleaned = clean_title(title)
    try:
        return chats.rename(call.caller, chat_id, cleaned, call.now)
    except ChatNotFound:
        if call.caller.roles:
            get(call, chat_id)
        raise


def delete(call: Call, chat_id: ChatId) -> None:
    """Hides a chat and everything in it, cancels its running turn, and has its resources cleaned up.

    Raises ChatNotFound.
    """
    for _ in range(DELETE_ATTEMPTS):
        if _deleted(call, get(call, chat_id), "chat_soft_delete"):
            return
    raise ServiceUnavailable


def expire(call: Call, chat: Chat, reason: DeletionReason = "temporary_expired") -> bool:
    """Deletes a chat on its owner's behalf; False when a turn of it began or ended meanwhile, or when one that nobody
    uses was used at all.

    Raises ChatNotFound.
    """
    return _deleted(call, chat, reason)


def _deleted(call: Call, chat: Chat, reason: DeletionReason) -> bool:
    events = (
        ChatDeleted(
            **by(call, chat.chat_id),
            reason=reason,
        ),
        to_be_cleaned(chat, call.now, call.new_id(call.now), reason),
    )
    items = [outbox.item(call, chat.chat_id, event) for event in events]
    unused = reason in ("temporary_expired", "idle")
    return chats.delete(call, chat, items, token=call.new_id(call.now), unused=unused)


def to_be_cleaned(
    chat: Chat, deleted_at: datetime, task_id: str, reason: DeletionReason = "chat_soft_delete"
) -> ChatCleanup:
    """The event that has everything of a deleted chat removed."""
    return ChatCleanup(
        tenant_id=chat.tenant_id,
        reason=reason,
        chat_id=chat.chat_id,
        user_id=chat.user_id,
        system_request_id=task_id,
        chat_deleted_at=deleted_at,
    )
