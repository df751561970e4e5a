"""Once a day: checks quota items and usage totals against the turns, finds what was deleted but is not gone, and
deletes chats that nobody has used for as long as their tenants keep such.

EventBridge Scheduler calls it.
"""

from datetime import timedelta

from minichat.moment import new_id, now
from minichat.observability import begin, count, emit, logger
from minichat.services import reconcile_reading, reconcile_report, reconcile_usage
from minichat.services.idle_chats import IdleChats
from minichat.services.provider_leftovers import CLEANED, Deleted
from minichat.services.reconcile_quota import reconcile, repair
from minichat.services.reconcile_report import ReconcileOutcome
from minichat.services.tenant_layers import tenant_layers
from minichat.settings import current
from minichat.storage import scan
from minichat.storage.items import connect

SETTLED = timedelta(minutes=15)
"""A turn that ended longer ago than this must have its ledger entry."""

connect(current().store)


def handler(event: dict[str, object], context: object) -> dict[str, int]:
    """Counts of what differs, is left over or cannot be read (each is logged), of what was repaired, and of idle chats
    that were deleted; a report of the former is kept."""
    del event, context
    begin()
    began = now()
    try:
        deleted, idle = Deleted(), IdleChats(tenant_layers(current()), began)
        found = reconcile_reading.read(items=idle.noted(deleted.noted(scan.items())))
        waiting = deleted.leftovers(now() - CLEANED)
        accounts, metered = reconcile(books=found), reconcile_usage.prove(now() - SETTLED, books=found)
        quota, ledger = accounts.differences, metered.mismatches
        for difference in (*quota, *ledger):
            logger.error("a difference", extra={"difference": str(difference)})
        for undecided in (*accounts.undecided, *metered.undecided):
            logger.warning("undecided", extra={"what": str(undecided)})
        for left in waiting:
            logger.error("a provider may still have what was deleted", extra={"left_over": str(left)})
        unreadable = [*found.unreadable, *deleted.unreadable]
        for one in unreadable:
            logger.error("an item cannot be read", extra={"item": one.key, "reason": one.reason})
        count("reconcile_differences_total", len(quota), what="quota")
        count("reconcile_differences_total", len(ledger), what="ledger")
        count("reconcile_unreadable_total", len(unreadable))
        count("reconcile_left_over_total", len(waiting))
        repaired = repair(quota) + reconcile_usage.repair(ledger, retention_days=current().quota.retention_days)
        expired = idle.delete(new_id)
    finally:
        emit(current().metrics_namespace)
    result = {
        "quota": len(quota),
        "ledger": len(ledger),
        "left_over": len(waiting),
        "unreadable": len(unreadable),
        "undecided": len(accounts.undecided) + len(metered.undecided),
        "repaired": repaired,
        "idle_chats": expired,
    }
    logger.info("reconciled", extra=result)
    reconcile_report.keep(began, now(), ReconcileOutcome(accounts, metered, waiting, unreadable, repaired))
    return result
