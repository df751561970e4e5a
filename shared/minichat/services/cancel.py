"""Cancel a running turn: a flag that its teller reads within about a second, whichever instance that is."""

from minichat.domain.errors import Forbidden
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.turn import Turn, TurnState, readable
from minichat.events.payloads import TurnCancelled
from minichat.services.audit_details import by
from minichat.services.orphans import read_and_repair
from minichat.services.turn_metrics import counted_turn
from minichat.settings import Settings
from minichat.storage import leases, outbox


def cancel(call: Call, chat_id: ChatId, request_id: RequestId, settings: Settings) -> Turn:
    """The turn, asked to stop if it runs; asking again changes nothing, and a turn that has ended stays as it is.

    A turn whose process is dead ends here, once it has been silent for long enough (`orphan.CANCEL_PATIENCE`).
    Raises ChatNotFound, TurnNotFound, Forbidden.
    """
    with counted_turn("cancel"):
        return _cancel(call, chat_id, request_id, settings)


def _cancel(call: Call, chat_id: ChatId, request_id: RequestId, settings: Settings) -> Turn:
    turn = _own(call, chat_id, request_id, settings)
    if turn.state is not TurnState.RUNNING or turn.cancel_requested_at is not None:
        return turn
    event = TurnCancelled(
        **by(call, chat_id),
        turn_id=turn.turn_id,
        request_id=request_id,
    )
    leases.request_cancel(call, turn, outbox.item(call, chat_id, event))
    return _own(call, chat_id, request_id, settings)


def _own(call: Call, chat_id: ChatId, request_id: RequestId, settings: Settings) -> Turn:
    _, found = read_and_repair(call, chat_id, request_id, settings)
    turn = readable(found)
    if turn.requester_user_id != call.caller.user_id:
        raise Forbidden
    return turn
