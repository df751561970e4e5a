"""Keeps what a run of the reconciliation found where operators and administrators read it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from minichat.domain.identity import TenantId
from minichat.domain.reconcile_report import ReconcileFinding, ReconcileRun, summed
from minichat.services.provider_leftovers import Leftover
from minichat.services.reconcile_quota import Reconciled
from minichat.services.reconcile_usage import Metered
from minichat.storage import keys, reconcile_reports
from minichat.storage.unreadable import Unreadable


@dataclass(frozen=True, slots=True)
class ReconcileOutcome:
    """Everything that a run came to."""

    accounts: Reconciled
    metered: Metered
    waiting: list[Leftover]
    unreadable: list[Unreadable]
    repaired: int


def keep(began: datetime, ended: datetime, outcome: ReconcileOutcome) -> None:
    """Stores a report of the run, and of each tenant in which it found something one of its own.

    Raises ServiceUnavailable: then there may be no report of this run, and the next one's is as good.
    """
    found = list(_findings(outcome))
    of_tenants: defaultdict[TenantId, list[ReconcileFinding]] = defaultdict(list)
    for one in found:
        if one.tenant_id is not None:
            of_tenants[TenantId(one.tenant_id)].append(one)
    for tenant_id, its in of_tenants.items():
        reconcile_reports.keep_findings(began, tenant_id, summed(its))
    run = ReconcileRun(
        at=began,
        seconds=round((ended - began).total_seconds(), 3),
        turns=outcome.accounts.turns,
        accounts=outcome.accounts.accounts,
        entries=outcome.metered.entries,
        repaired=outcome.repaired,
    )
    reconcile_reports.keep_run(run, summed(found))


def _findings(outcome: ReconcileOutcome) -> Iterable[ReconcileFinding]:
    for one in outcome.accounts.differences:
        where = f"{one.counted} of {one.period}, user {one.account.user_id}"
        yield ReconcileFinding("quota", one.account.tenant_id, where, str(one.says), str(one.turns_say))
    for wrong in outcome.metered.mismatches:
        yield ReconcileFinding("ledger", wrong.tenant_id, wrong.where, wrong.says, wrong.should_say)
    for left in outcome.waiting:
        # The last failure's reason is the provider's words: it stays in the log.
        where = f"{left.what}, chat {left.chat_id}, deleted {left.deleted_at:%Y-%m-%d}"
        yield ReconcileFinding("left_over", left.tenant_id, where, f"{left.attempts} attempts failed", "cleaned up")
    for item in outcome.unreadable:
        # What is wrong may quote the item: its first word is the kind of problem.
        where = f"{item.key.pk} {item.key.sk}"
        yield ReconcileFinding("unreadable", keys.tenant_of(item.key.pk), where, item.reason.partition(":")[0])
    for unsure in outcome.accounts.undecided:
        where = f"quota of {unsure.account.month}, user {unsure.account.user_id}"
        yield ReconcileFinding("undecided", unsure.account.tenant_id, where, unsure.reason)
    for day in outcome.metered.undecided:
        yield ReconcileFinding("undecided", None, day)
