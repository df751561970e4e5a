"""Chats: create, list, get, rename, delete."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from minichat.domain import errors
from minichat.http import listing
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, IdempotencyKey, TheApp, TheCall, TheChat
from minichat.http.problems import documented
from minichat.http.public_path import public_path
from minichat.http.request_models import CreateChat, ListChats, RenameChat
from minichat.http.response_models import ChatDetail, Page, chat_detail
from minichat.services import chats
from minichat.storage import policies

router = APIRouter(tags=["chats"], route_class=Authenticated)


@router.post(
    "/chats",
    dependencies=[acts("chat:create")],
    status_code=201,
    responses=documented(errors.ChatNotFound, errors.InvalidModel, errors.IdempotencyKeyConflict),
)
def create_chat(  # noqa: PLR0913, PLR0917  one for each thing that the request says
    request: Request,
    response: Response,
    call: TheCall,
    app: TheApp,
    body: CreateChat,
    idempotency_key: IdempotencyKey = None,
) -> ChatDetail:
    """A new chat. With an `Idempotency-Key` the same call gives the same chat for 24 hours; 404 once it was deleted.

    A temporary chat is in no list, and is deleted with everything in it once nobody has used it for a day.
    """
    wish = chats.NewChat(body.title, body.model, idempotency_key, temporary=bool(body.is_temporary))
    rules = app.rules_of(call.caller).of_user(policies.layer_of(call.caller.tenant_id, call.caller.user_id))
    chat = chats.create(call, wish, rules)
    response.headers["location"] = public_path(request, f"{app.settings.url_prefix}/v1/chats/{chat.chat_id}")
    return chat_detail(chat)


@router.get("/chats", dependencies=[acts("chat:list")], responses=documented(errors.InvalidCursor))
def list_chats(
    request: Request,
    call: TheCall,
    app: TheApp,
    wish: Annotated[ListChats, Depends()],
) -> Page[ChatDetail]:
    """The caller's chats, the most recently active first, without temporary ones.

    A page that a filter leaves short may have a next one.
    """
    return listing.chats(call, app.cursors, listing.Query.of(request, wish.limit, wish.cursor, filter_=wish.filter_))


@router.get("/chats/{chat_id}", dependencies=[acts("chat:read")], responses=documented(errors.ChatNotFound))
def get_chat(call: TheCall, chat_id: TheChat) -> ChatDetail:
    """One chat."""
    return chat_detail(chats.get(call, chat_id))


@router.patch("/chats/{chat_id}", dependencies=[acts("chat:update")], responses=documented(errors.ChatNotFound))
def rename_chat(call: TheCall, chat_id: TheChat, body: RenameChat) -> ChatDetail:
    """Gives the chat another title; nothing else can be changed."""
    return chat_detail(chats.rename(call, chat_id, body.title))


@router.delete(
    "/chats/{chat_id}", dependencies=[acts("chat:delete")], status_code=204, responses=documented(errors.ChatNotFound)
)
def delete_chat(call: TheCall, chat_id: TheChat) -> None:
    """Deletes the chat; a running turn is cancelled, and everything in the chat is cleaned up."""
    chats.delete(call, chat_id)
