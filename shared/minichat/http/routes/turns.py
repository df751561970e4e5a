"""Operations of turns that do not stream: status, cancel and delete."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from minichat.domain import errors
from minichat.domain.turn import TurnState, readable
from minichat.http.acting import acts
from minichat.http.bill_models import Bill, bill_of
from minichat.http.deps import Authenticated, TheApp, TheCall, TheChat, TheTurn
from minichat.http.problems import MUTATION_ERRORS, documented
from minichat.http.response_models import TurnStatus, turn_status
from minichat.services import mutate
from minichat.services.cancel import cancel
from minichat.services.orphans import read_and_repair
from minichat.storage import messages
from minichat.storage.kept import kept_bytes

router = APIRouter(tags=["turns"], route_class=Authenticated)

_ENDED_BEFORE: dict[int | str, dict[str, Any]] = {
    200: {"model": TurnStatus, "description": "The turn had ended before."}
}


@router.get(
    "/chats/{chat_id}/turns/{request_id:item}",
    dependencies=[acts("turn:read")],
    responses=documented(errors.ChatNotFound, errors.TurnNotFound),
)
def get_turn(call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn) -> TurnStatus:
    """Where a turn stands; authoritative, whatever a stream showed."""
    _, turn = read_and_repair(call, chat_id, request_id, app.settings)
    turn = readable(turn)
    return turn_status(turn, messages.cited(turn))


@router.get(
    "/chats/{chat_id}/turns/{request_id:item}/bill",
    dependencies=[acts("turn:read")],
    responses=documented(errors.ChatNotFound, errors.TurnNotFound),
)
def get_bill(call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn) -> Bill:
    """What a turn cost, and why: estimated, reserved, counted, charged, and used to run it.

    A turn that was deleted or replaced was charged all the same, and has its bill as long as the chat is there.
    """
    _, turn = read_and_repair(call, chat_id, request_id, app.settings)
    if turn is None:
        raise errors.TurnNotFound
    return bill_of(turn, kept_bytes(turn))


@router.post(
    "/chats/{chat_id}/turns/{request_id:item}/cancel",
    dependencies=[acts("turn:cancel")],
    status_code=202,
    responses=_ENDED_BEFORE | documented(errors.ChatNotFound, errors.TurnNotFound, errors.Forbidden),
)
def cancel_turn(response: Response, call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn) -> TurnStatus:
    """Asks a running turn to stop: it ends within two seconds, keeps its text, and is charged for what it used."""
    turn = cancel(call, chat_id, request_id, app.settings)
    if turn.state is not TurnState.RUNNING:
        response.status_code = 200
    return turn_status(turn, messages.cited(turn))


@router.delete(
    "/chats/{chat_id}/turns/{request_id:item}",
    dependencies=[acts("turn:delete")],
    status_code=204,
    responses=documented(*MUTATION_ERRORS),
)
def delete_turn(call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn) -> None:
    """Deletes the chat's latest turn with its messages; the one before it is the latest again."""
    mutate.delete(call, chat_id, request_id, app.settings)
