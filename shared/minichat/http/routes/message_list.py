"""The messages of a chat, as a list."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minichat.domain import errors
from minichat.http import listing
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, TheApp, TheCall, TheChat
from minichat.http.problems import documented
from minichat.http.request_models import ListMessages
from minichat.http.response_models import MessageView, Page, SelectedMessageView

router = APIRouter(tags=["messages"], route_class=Authenticated)

_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"model": Page[MessageView] | Page[SelectedMessageView], "description": "With `$select`: its members only."}
}


@router.get(
    "/chats/{chat_id}/messages",
    dependencies=[acts("message:list")],
    response_model=None,
    responses=_PAGE | documented(errors.ChatNotFound, errors.InvalidCursor),
)
def list_messages(
    request: Request, call: TheCall, app: TheApp, chat_id: TheChat, wish: Annotated[ListMessages, Depends()]
) -> Response:
    """The visible messages, in the order of the conversation unless `$orderby` says otherwise."""
    query = listing.Query.of(
        request, wish.limit, wish.cursor, select=wish.select, orderby=wish.orderby, filter_=wish.filter_
    )
    return JSONResponse(listing.messages(call, app.cursors, chat_id, query))
