"""Turns that run now: for who looks after the deployment or a tenant."""

from fastapi import APIRouter

from minichat.domain import access_errors, errors
from minichat.domain.identity import TenantId
from minichat.http.acting import acts
from minichat.http.admin.access import OperatorCall, TenantCall
from minichat.http.admin.views import RunningTurns, RunningTurnView
from minichat.http.deps import Authenticated, TheChat, TheTurn
from minichat.http.problems import documented
from minichat.moment import now
from minichat.services import running_turns

router = APIRouter(tags=["running turns"], route_class=Authenticated)


@router.get("/running_turns", dependencies=[acts("running_turn:list")], responses=documented(errors.Forbidden))
def list_running_turns(call: OperatorCall) -> RunningTurns:
    """Running turns of all tenants: the thousand that are silent for longest."""
    del call
    return _listed(None)


_OF_TENANT = "/tenants/{tenant_id}/running_turns"
_REFUSALS = (errors.Forbidden, access_errors.TenantNotFound)


@router.get(_OF_TENANT, dependencies=[acts("running_turn:list")], responses=documented(*_REFUSALS))
def list_tenant_running_turns(call: TenantCall) -> RunningTurns:
    """Running turns of a tenant: the thousand that are silent for longest."""
    return _listed(call.caller.tenant_id)


@router.post(
    f"{_OF_TENANT}/{{chat_id}}/{{request_id}}/cancel",
    status_code=204,
    dependencies=[acts("running_turn:cancel")],
    responses=documented(*_REFUSALS, errors.TurnNotFound),
)
def cancel_running_turn(call: TenantCall, chat_id: TheChat, request_id: TheTurn) -> None:
    """Asks a turn to stop, as its owner's cancel does; one that has ended stays as it is."""
    running_turns.cancel(call, chat_id, request_id)


def _listed(tenant_id: TenantId | None) -> RunningTurns:
    found = running_turns.listed(now(), tenant_id)
    return RunningTurns(
        items=[
            RunningTurnView(
                tenant_id=turn.tenant_id,
                user_id=turn.requester_user_id,
                chat_id=turn.chat_id,
                request_id=turn.request_id,
                model=turn.reserve.effective_model,
                started_at=turn.started_at,
                last_progress_at=turn.last_progress_at,
                cancel_requested=turn.cancel_requested_at is not None,
                reserved_micro=turn.reserve.credits_micro,
            )
            for turn in found.turns
        ],
        unreadable=found.unreadable,
    )
