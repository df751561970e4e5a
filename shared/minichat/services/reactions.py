"""Reactions of a chat's owner to its answers (contract 1): one per message, stored with it, deleted with its turn."""

from datetime import datetime

from minichat.domain.chat_visibility import visible
from minichat.domain.errors import InvalidReactionTarget, MessageNotFound, ServiceUnavailable
from minichat.domain.identity import Call, ChatId, MessageId
from minichat.domain.message import Reaction
from minichat.events.payloads import ReactionChanged
from minichat.services.audit_details import by
from minichat.storage import outbox, reactions
from minichat.storage.reactions import Reacted

LOOKS = 5
"""How often a message is read again that changed between read and write: each time somebody else wrote."""


def react(call: Call, chat_id: ChatId, message_id: MessageId, reaction: Reaction) -> datetime:
    """Gives the message this reaction; since when it has it.

    Raises ChatNotFound; MessageNotFound; InvalidReactionTarget when the message is no assistant's; ServiceUnavailable.
    """
    return _changed(call, chat_id, message_id, reaction)


def take_back(call: Call, chat_id: ChatId, message_id: MessageId) -> None:
    """Removes the message's reaction.

    Raises ChatNotFound, MessageNotFound, ServiceUnavailable.
    """
    _changed(call, chat_id, message_id, None)


def _changed(call: Call, chat_id: ChatId, message_id: MessageId, reaction: Reaction | None) -> datetime:
    for _ in range(LOOKS):
        chat, now = reactions.read(call.caller.tenant_id, chat_id, message_id)
        visible(chat, call.caller)
        if now is None:
            raise MessageNotFound
        if reaction is not None and now.role != "assistant":
            raise InvalidReactionTarget
        if now.reaction == reaction:
            return now.since or call.now
        event = outbox.item(call, chat_id, _event(call, now, reaction))
        if reactions.write(call, now, reaction, event):
            return call.now
    raise ServiceUnavailable


def _event(call: Call, now: Reacted, reaction: Reaction | None) -> ReactionChanged:
    return ReactionChanged(
        event_type="reaction_delete" if reaction is None else "reaction_set",
        **by(call, now.chat_id),
        message_id=now.message_id,
        request_id=now.request_id,
        reaction=reaction,
    )
