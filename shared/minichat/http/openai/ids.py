"""Ids as this door tells them: each is made of our own and leads back to them, so nothing is stored for it.

What they name is looked up below the caller's tenant, as everything is: an id of another tenant's names nothing.
"""

import re
from uuid import UUID, uuid4, uuid5

from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.names import in_key

_RESPONSE = re.compile(r"resp_([0-9a-f]{32})([0-9a-f]{32})")
_CONVERSATION = re.compile(r"conv_([0-9a-f]{32})")
_OF_KEYS = UUID("8f0f5a52-0d6c-4f0e-9b9a-6a1d7c1f2e35")
"""The namespace of ids that are derived from clients' keys."""


def response_id(chat_id: str, request_id: str) -> str:
    """The id of a turn's response."""
    return f"resp_{_digits(chat_id)}{_digits(request_id)}"


def completion_id(chat_id: str, request_id: str) -> str:
    """The id of a turn as a chat completion."""
    return f"chatcmpl-{_digits(chat_id)}{_digits(request_id)}"


def conversation_id(chat_id: str) -> str:
    """The id of a chat as a conversation."""
    return f"conv_{_digits(chat_id)}"


def message_id(one: str) -> str:
    """The id of an answer's message."""
    return f"msg_{_digits(one)}"


def turn_of(named: str) -> tuple[ChatId, RequestId] | None:
    """The chat and the turn of a response's id; None for what is no such id."""
    found = _RESPONSE.fullmatch(named)
    return None if found is None else (ChatId(str(UUID(found[1]))), RequestId(str(UUID(found[2]))))


def chat_of(named: str) -> ChatId | None:
    """The chat of a conversation's id, or of our own id of it; None for what is neither."""
    found = _CONVERSATION.fullmatch(named)
    try:
        return ChatId(str(UUID(found[1] if found else named)))
    except ValueError:
        return None


def new_chat_id(call: Call, key: str | None) -> ChatId:
    """The id of a chat to be made: always the same one for a caller's idempotency key."""
    return ChatId(call.new_id(call.now) if key is None else _derived(call, "chat", key))


def new_request_id(call: Call, chat_id: ChatId, key: str | None) -> RequestId:
    """The id of a turn to be made: always the same one for a caller's idempotency key in a chat."""
    return RequestId(str(uuid4()) if key is None else _derived(call, chat_id, key))


def _derived(call: Call, what: str, key: str) -> str:
    caller = call.caller
    return str(uuid5(_OF_KEYS, "/".join((in_key(caller.tenant_id), in_key(caller.user_id), what, key))))


def _digits(uuid: str) -> str:
    return UUID(uuid).hex
