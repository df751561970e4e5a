"""Turns that run now, as those see and stop them who look after a tenant or the deployment."""

from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest

from minichat.domain.errors import TurnNotFound
from minichat.domain.identity import Call, ChatId, RequestId, TenantId
from minichat.domain.turn import Turn, TurnState
from minichat.events.payloads import TurnCancelled
from minichat.services.audit_details import by
from minichat.storage import keys, leases, outbox, turn_lists, turns

MOST = 1000
"""Running turns that one list has."""


@dataclass(frozen=True, slots=True)
class FoundRunning:
    """Running turns, the longest silent first, and how many cannot be read."""

    turns: list[Turn]
    unreadable: int


def listed(now: datetime, tenant_id: TenantId | None = None) -> FoundRunning:
    """The running turns of a tenant, or of all, `MOST` at most.

    Raises ServiceUnavailable.
    """
    running, unreadable = list[Turn](), 0
    for shard in keys.RUNNING_SHARDS:
        for page in turn_lists.running_since(now, shard):
            readable = [one for one in page if isinstance(one, Turn)]
            unreadable += len(page) - len(readable)
            running += [turn for turn in readable if tenant_id in (None, turn.tenant_id)]
    # A tenant is not told of what may be another's.
    told = unreadable if tenant_id is None else 0
    return FoundRunning(nsmallest(MOST, running, key=lambda turn: turn.last_progress_at), told)


def cancel(call: Call, chat_id: ChatId, request_id: RequestId) -> None:
    """Asks a turn of the call's tenant to stop; the event says who asked.

    One that has ended, or was asked, stays as it is.
    Raises TurnNotFound, ServiceUnavailable.
    """
    _, turn = turns.read(call.caller.tenant_id, chat_id, request_id)
    if turn is None:
        raise TurnNotFound
    if turn.state is not TurnState.RUNNING or turn.cancel_requested_at is not None:
        return
    event = TurnCancelled(**by(call, chat_id), turn_id=turn.turn_id, request_id=request_id)
    leases.request_cancel(call, turn, outbox.item(call, chat_id, event))
