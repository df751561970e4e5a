"""What a tenant has used, for its administrator and the operator."""

from collections import defaultdict
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from minichat.domain import access_errors, errors
from minichat.domain.identity import TenantId
from minichat.domain.usage_ledger import LedgerSums
from minichat.http.acting import acts
from minichat.http.admin.access import TenantCall
from minichat.http.admin.views import UsedList, UsedView
from minichat.http.deps import Authenticated
from minichat.http.problems import documented
from minichat.http.routes.usage import days
from minichat.storage import usage_ledger
from minichat.storage.unreadable import Unreadable

router = APIRouter(tags=["usage"], route_class=Authenticated)


@router.get(
    "/tenants/{tenant_id}/usage",
    dependencies=[acts("tenant_usage:read")],
    responses=documented(errors.Forbidden, access_errors.TenantNotFound),
)
def get_tenant_usage(
    call: TenantCall,
    since: Annotated[date, Query(alias="from", description="The first day, in UTC.")],
    until: Annotated[date, Query(alias="to", description="The last day, at most 92 after the first.")],
    by: Literal["day", "user", "model"] = "day",
) -> UsedList:
    """A tenant's usage: a row per day, per user, or per model. The last reads every turn of these days."""
    wanted, tenant_id = days(since, until), call.caller.tenant_id
    unread: list[Unreadable] = []
    rows = _by_model(tenant_id, wanted) if by == "model" else _totals(tenant_id, wanted, by, unread)
    return UsedList(items=[_row(by, name, used) for name, used in sorted(rows.items())], unreadable=len(unread))


def _totals(tenant_id: TenantId, wanted: list[str], by: str, unread: list[Unreadable]) -> dict[str, LedgerSums]:
    rows: defaultdict[str, LedgerSums] = defaultdict(LedgerSums)
    for total in usage_ledger.totals(tenant_id, wanted[0], wanted[-1], unread):
        if (by == "day") is (total.user_id is None):
            rows[total.user_id or total.day] += total.used
    return rows


def _by_model(tenant_id: TenantId, wanted: list[str]) -> dict[str, LedgerSums]:
    rows: defaultdict[str, LedgerSums] = defaultdict(LedgerSums)
    for day in wanted:
        for entry in usage_ledger.entries(tenant_id, day):
            rows[entry.model] += entry.used
    return rows


def _row(by: str, name: str, used: LedgerSums) -> UsedView:
    counts = asdict(used)
    named: dict[str, Any] = {"user_id" if by == "user" else by: name}
    return UsedView(**named, credits_micro=counts.pop("committed_micro"), **counts)
