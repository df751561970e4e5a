"""What the daily reconciliation has found."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from minichat.domain import access_errors, errors
from minichat.domain.reconcile_report import Findings
from minichat.http.acting import acts
from minichat.http.admin.access import OperatorCall, TenantCall
from minichat.http.admin.views import (
    FindingView,
    ReconcileReports,
    ReconcileReportView,
    ReconcileRuns,
    ReconcileRunView,
)
from minichat.http.deps import Authenticated
from minichat.http.problems import documented
from minichat.storage import reconcile_reports

router = APIRouter(tags=["reconciliation"], route_class=Authenticated)
Limit = Annotated[int, Query(ge=1, le=10)]
Before = Annotated[AwareDatetime, Query(description="Only runs that began before: `at` of a page's last one.")]


@router.get("/reconcile", dependencies=[acts("reconcile:read")], responses=documented(errors.Forbidden))
def list_reconcile_runs(
    call: OperatorCall, limit: Limit = 7, before: Before = reconcile_reports.LATEST
) -> ReconcileRuns:
    """The latest runs, the latest first: how much was compared, and what was found; kept for 90 days."""
    del call
    found = reconcile_reports.runs(before, limit)
    return ReconcileRuns(items=[ReconcileRunView(**asdict(run), **_told(its)) for run, its in found])


@router.get(
    "/tenants/{tenant_id}/reconcile",
    dependencies=[acts("reconcile:read")],
    responses=documented(errors.Forbidden, access_errors.TenantNotFound),
)
def list_reconcile_reports(
    call: TenantCall, limit: Limit = 7, before: Before = reconcile_reports.LATEST
) -> ReconcileReports:
    """What the latest runs have found in a tenant, the latest first."""
    times = [run.at for run, _ in reconcile_reports.runs(before, limit)]
    found = reconcile_reports.of_tenant(call.caller.tenant_id, times)
    return ReconcileReports(items=[ReconcileReportView(**_told(found[at]), at=at) for at in times])


def _told(found: Findings) -> dict[str, Any]:
    return {"counts": found.counts, "findings": [FindingView(**asdict(one)) for one in found.first]}
