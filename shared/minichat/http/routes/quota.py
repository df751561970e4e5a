"""What a user may still spend."""

from dataclasses import replace

from fastapi import APIRouter

from minichat.domain.day_counts import counted
from minichat.domain.quota_left import remaining
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, TheApp, TheCall
from minichat.http.problems import documented
from minichat.http.response_models import QuotaStatus, quota_status
from minichat.storage import starting_point

router = APIRouter(tags=["quota"], route_class=Authenticated)


@router.get("/quota/status", dependencies=[acts("quota:read")], responses=documented())
def get_quota_status(call: TheCall, app: TheApp) -> QuotaStatus:
    """Used and remaining micro-credits of this day and this month, in UTC, and the daily limits of tool calls, images
    and files. `used` includes what running turns have reserved."""
    caller, rules = call.caller, app.rules_of(call.caller)
    used, layer = starting_point.look_at_quota(call, rules.policy.limits_of(caller.user_id))
    used = replace(used, limits=rules.of_user(layer).policy.limits_of(caller.user_id))
    counts = counted(used.daily.counts, rules.per_day, call.now)
    threshold = rules.settings.quota.warning_threshold_pct
    return quota_status(remaining(used, threshold, call.now), counts, threshold)
