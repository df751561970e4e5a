"""What a user may still spend."""

from fastapi import APIRouter

from minichat.domain.day_counts import counted
from minichat.domain.quota_left import remaining
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, TheApp, TheCall
from minichat.http.problems import documented
from minichat.http.response_models import QuotaStatus, quota_status
from minichat.storage import quota

router = APIRouter(tags=["quota"], route_class=Authenticated)


@router.get("/quota/status", dependencies=[acts("quota:read")], responses=documented())
def get_quota_status(call: TheCall, app: TheApp) -> QuotaStatus:
    """Used and remaining micro-credits of this day and this month, in UTC, and the daily limits of tool calls, images
    and files. `used` includes what running turns have reserved."""
    rules = app.rules
    limits = rules.policy.limits_of(call.caller.user_id)
    used = quota.read(call.caller.tenant_id, call.caller.user_id, limits, call.now)
    counts = counted(used.daily.counts, rules.per_day, call.now)
    threshold = rules.settings.quota.warning_threshold_pct
    return quota_status(remaining(used, threshold, call.now), counts, threshold)
