"""What a tenant has used, for its administrator and the operator."""

from collections import defaultdict
from datetime import date
from typing import Annotated, Literal

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
    rows = _by_model(tenant_id, wanted) if by == "model" else _totals(tenant_id, wanted, by)
    return UsedList(items=[_row(by, name, used) for name, used in sorted(rows.items())])


def _totals(tenant_id: TenantId, wanted: list[str], by: str) -> dict[str, LedgerSums]:
    rows: defaultdict[str, LedgerSums] = defaultdict(LedgerSums)
    for total in usage_ledger.totals(tenant_id, wanted[0], wanted[-1]):
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
    said = {"user_id" if by == "user" else by: name}
    return UsedView(
        **said,
        turns=used.turns,
        credits_micro=used.committed_micro,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
    )
