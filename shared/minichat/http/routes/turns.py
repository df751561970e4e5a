"""Turns, as far as they do not stream: status and delete."""

from fastapi import APIRouter

from minichat.domain import errors
from minichat.domain.turn import readable
from minichat.http.deps import TheApp, TheCall, TheChat, TheTurn
from minichat.http.problems import documented
from minichat.http.schemas import TurnStatus, turn_status
from minichat.services import mutate
from minichat.services.orphans import looked_at

router = APIRouter(tags=["turns"])

MUTATION_ERRORS = (
    errors.ChatNotFound,
    errors.TurnNotFound,
    errors.Forbidden,
    errors.InvalidTurnState,
    errors.NotLatestTurn,
    errors.GenerationInProgress,
)


@router.get(
    "/chats/{chat_id}/turns/{request_id}",
    responses=documented(errors.ChatNotFound, errors.TurnNotFound),
)
def get_turn(call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn) -> TurnStatus:
    """Where a turn stands; the truth about it, whatever a stream showed."""
    _, turn = looked_at(call, chat_id, request_id, app.settings)
    return turn_status(readable(turn))


@router.delete("/chats/{chat_id}/turns/{request_id}", status_code=204, responses=documented(*MUTATION_ERRORS))
def delete_turn(call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn) -> None:
    """Deletes the chat's latest turn with its messages; the one before it is the latest again."""
    mutate.delete(call, chat_id, request_id, app.settings)
