"""Who may retry, edit or delete a turn, and when (contract 2)."""

from minichat.domain.chat import Chat
from minichat.domain.chat_visibility import visible
from minichat.domain.errors import Forbidden, InvalidTurnState, NotLatestTurn, TurnNotFound
from minichat.domain.identity import Caller, RequestId
from minichat.domain.turn import Turn, TurnState


def check_mutation(caller: Caller, chat: Chat | None, turn: Turn | None, target: RequestId) -> tuple[Chat, Turn]:
    """The chat and its turn `target`, when the caller may retry, edit or delete it.

    Five checks, and the first that fails decides (contract 2). They run on what was read before the transaction, and
    again on what the transaction found when it was refused, so a lost race gets the same words as a late request.

    Raises ChatNotFound, TurnNotFound, Forbidden, InvalidTurnState, NotLatestTurn.
    """
    # (1) A foreign or deleted chat says nothing about its turns.
    chat = visible(chat, caller)
    # (2) Deleted turns exist here: (5) refuses them, so that deleting twice is 409 and not 404.
    if turn is None:
        raise TurnNotFound
    # (3) In a chat of one's own this only fails where requesters and owners can differ.
    if turn.requester_user_id != caller.user_id:
        raise Forbidden
    # (4) Before (5): an older turn that still runs is a wrong state, not a lost race.
    if turn.state is TurnState.RUNNING:
        raise InvalidTurnState
    # (5) The head names the latest turn that is not deleted.
    if chat.latest_request_id != target or turn.deleted_at is not None:
        raise NotLatestTurn
    return chat, turn
