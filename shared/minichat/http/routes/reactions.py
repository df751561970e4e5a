"""Reactions of a chat's owner to its answers."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from minichat.domain import errors
from minichat.domain.identity import MessageId
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, TheCall, TheChat
from minichat.http.problems import documented
from minichat.http.request_models import React
from minichat.http.response_models import ReactionView
from minichat.services import reactions

router = APIRouter(tags=["messages"], route_class=Authenticated)

_PATH = "/chats/{chat_id}/messages/{message_id}/reaction"


async def _message_id(message_id: UUID) -> MessageId:
    return MessageId(str(message_id))


TheMessage = Annotated[MessageId, Depends(_message_id)]


@router.put(
    _PATH,
    dependencies=[acts("message:react")],
    responses=documented(errors.ChatNotFound, errors.MessageNotFound, errors.InvalidReactionTarget),
)
def set_reaction(call: TheCall, chat_id: TheChat, message_id: TheMessage, body: React) -> ReactionView:
    """Likes or dislikes an answer, in place of any earlier reaction. Repeating it changes nothing."""
    since = reactions.react(call, chat_id, message_id, body.reaction)
    return ReactionView(message_id=UUID(message_id), reaction=body.reaction, created_at=since)


@router.delete(
    _PATH,
    dependencies=[acts("message:react")],
    status_code=204,
    responses=documented(errors.ChatNotFound, errors.MessageNotFound),
)
def delete_reaction(call: TheCall, chat_id: TheChat, message_id: TheMessage) -> None:
    """Takes a reaction back; without one, nothing changes."""
    reactions.take_back(call, chat_id, message_id)
