"""Which chats a caller sees, and that all others are the same to them: not there (contract 1)."""

from minichat.domain.authorization import decide, relation, sees
from minichat.domain.chat import Chat
from minichat.domain.errors import ChatNotFound, Forbidden
from minichat.domain.identity import Caller, Resource


def visible(chat: Chat | None, caller: Caller) -> Chat:
    """The chat, when the caller may do with it what they ask for (`Caller.action`).

    Without an action, as in workers, only its owner may. What one may not see is not there, for whatever reason; what
    one may see and not do is forbidden (contract 2).
    Raises ChatNotFound, Forbidden; ServiceUnavailable when the tenant's own policies cannot be evaluated.
    """
    if chat is None or chat.deleted_at is not None:
        raise ChatNotFound
    resource = Resource(chat.tenant_id, chat.user_id, chat.chat_id)
    if caller.action is None:
        if relation(caller, resource) != "own":
            raise ChatNotFound
        return chat
    decision = decide(caller, caller.action, resource)
    if not decision.allowed:
        raise Forbidden(caller.action, decision.policies) if sees(caller, resource) else ChatNotFound
    return chat
