"""Once a day: quota items and usage totals against the turns. EventBridge Scheduler calls it."""

from datetime import timedelta

from minichat.moment import now
from minichat.observability import begin, count, emit, logger
from minichat.services import metering
from minichat.services.reconcile import reconcile, repair
from minichat.settings import current
from minichat.storage.items import connect

SETTLED = timedelta(minutes=15)
"""How long ago a turn has ended whose ledger entry must be there."""

connect(current().store)


def handler(event: dict[str, object], context: object) -> dict[str, int]:
    """How much differs, each named in the log; and how much of it was set right, under a condition."""
    del event, context
    begin()
    try:
        quota = reconcile().differences
        ledger = metering.prove(now() - SETTLED).mismatches
        for difference in (*quota, *ledger):
            logger.error("a difference", extra={"difference": str(difference)})
        count("reconcile_differences_total", len(quota), what="quota")
        count("reconcile_differences_total", len(ledger), what="ledger")
        repaired = repair(quota) + metering.repair(ledger, retention_days=current().quota.retention_days)
    finally:
        emit(current().metrics_namespace)
    result = {"quota": len(quota), "ledger": len(ledger), "repaired": repaired}
    logger.info("reconciled", extra=result)
    return result
