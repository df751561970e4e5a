"""Whether the deployment works as a whole."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from minichat import __version__
from minichat.domain import errors
from minichat.http.acting import acts
from minichat.http.admin.access import OperatorCall
from minichat.http.admin.routes.dead_letters import depths
from minichat.http.admin.views import AdminHealth
from minichat.http.deps import Authenticated, TheApp
from minichat.http.problems import documented
from minichat.services import running_turns

router = APIRouter(tags=["service"], route_class=Authenticated)

_ANSWERS = documented(errors.Forbidden)
_ANSWERS[503]["model"] = AdminHealth  # besides the problem, when the store does not answer
LATE = 1000
"""Messages waiting in one queue from which on the workers count as late."""


@router.get(
    "/health",
    dependencies=[acts("deployment:read")],
    responses=_ANSWERS,
)
async def get_health(response: Response, call: OperatorCall, app: TheApp) -> AdminHealth:
    """Dead letters, waiting messages, and how long the oldest running turn runs; 503 when something needs a person."""
    queues = await asyncio.to_thread(depths, app.settings.queues)
    running = (await asyncio.to_thread(running_turns.listed, call.now)).turns
    silent = max((call.now - turn.last_progress_at for turn in running), default=None)
    ages = [(call.now - turn.started_at).total_seconds() for turn in running]
    patience = 2 * app.settings.orphan_watchdog.timeout_seconds
    failing = {
        "dead_letters": any(one.dead for one in queues),
        "queues_late": any((one.waiting or 0) >= LATE for one in queues),
        "turns_silent": silent is not None and silent.total_seconds() > patience,
    }
    wrong = [name for name, fails in failing.items() if fails]
    response.status_code = 503 if wrong else 200
    return AdminHealth(
        status="failing" if wrong else "ok",
        failing=wrong,
        version=__version__,
        dead_letters=sum(one.dead for one in queues),
        waiting=sum(one.waiting or 0 for one in queues),
        oldest_running_seconds=max(ages, default=None),
    )
