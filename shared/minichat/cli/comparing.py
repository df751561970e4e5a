"""What `minichat reconcile` compares, from the tables themselves."""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from minichat.cli import target
from minichat.cli.output import plain, table
from minichat.events import audit_sink
from minichat.moment import now
from minichat.services import reconcile_reading, reconcile_usage
from minichat.services.reconcile_quota import Reconciled, reconcile, repair
from minichat.storage.unreadable import Unreadable


def compare(options: argparse.Namespace) -> int:
    """0 when everything agrees, 1 when something differs or cannot be read; 2 when there is nothing of the tenant."""
    settings = target.connected(options)
    found = reconcile_reading.read(options.tenant)
    result = reconcile(books=found)
    sink = settings.audit.sink
    audited = None if sink.startswith("s3://") else audit_sink.records(Path(sink))
    ended_before = now() - timedelta(seconds=options.settled_seconds)
    metered = reconcile_usage.prove(ended_before, audited=audited, books=found)
    if options.json:
        unreadable = [{**one.key._asdict(), "reason": one.reason} for one in found.unreadable]
        print(
            json.dumps({**asdict(result), "metered": asdict(metered), "unreadable": unreadable}, indent=2, default=str)
        )
    else:
        _print(result, metered, found.unreadable, "not read" if audited is None else "read")
    if options.tenant is not None and not (result.turns or result.accounts or metered.entries or found.unreadable):
        print(f"minichat: there is nothing of a tenant {options.tenant!a}: nothing was compared", file=sys.stderr)
        return 2
    if options.repair:
        totals = reconcile_usage.repair(metered.mismatches, retention_days=settings.quota.retention_days)
        print(f"repaired: {repair(result.differences)} quota entries, {totals} totals", file=sys.stderr)
    return 1 if result.differences or metered.mismatches or found.unreadable else 0


def _print(
    result: Reconciled, metered: reconcile_usage.Metered, unreadable: list[Unreadable], audit_trail: str
) -> None:
    if result.differences:
        rows = [
            (d.account.tenant_id, d.account.user_id, d.period, d.counted, d.says, d.turns_say)
            for d in result.differences
        ]
        print(table(("tenant", "user", "period", "counted", "item says", "turns say"), rows))
    if metered.mismatches:
        mismatches = [(one.tenant_id, one.where, one.says, one.should_say) for one in metered.mismatches]
        print(table(("tenant", "where", "says", "should say"), mismatches))
    for left in result.undecided:
        where = left.account
        print(f"undecided: {plain(where.tenant_id)} {plain(where.user_id)} {where.month}: {left.reason}")
    for day in metered.undecided:
        print(f"undecided: {day}: it never stood still, or could not be read")
    for one in unreadable:
        print(f"cannot be read: {one.key.pk} {one.key.sk}: {one.reason}")
    count = len(result.differences) + len(metered.mismatches)
    print(
        f"{result.turns} turns, {result.accounts} accounts; {metered.turns} ended turns, {metered.entries} ledger "
        f"entries, {metered.days} days of totals, audit trail {audit_trail}; {count} differences"
    )
