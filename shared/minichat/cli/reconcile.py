"""`minichat reconcile`: recomputes from the turns what every quota item must say, and names each difference."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.domain.identity import TenantId
from minichat.services.reconcile import reconcile


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("reconcile", help="compare quota items with the turns", description=__doc__)
    parser.add_argument("--tenant", type=TenantId, help="this tenant only, by its UUID")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    target.add_to(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when everything agrees, 1 when something differs."""
    target.connected(options)
    result = reconcile(options.tenant)
    if options.json:
        print(json.dumps(asdict(result), indent=2))
    else:
        if result.differences:
            rows = [
                (d.account.tenant_id, d.account.user_id, d.period, d.counted, d.says, d.turns_say)
                for d in result.differences
            ]
            print(table(("tenant", "user", "period", "counted", "item says", "turns say"), rows))
        for moving in result.undecided:
            print(f"{moving.tenant_id} {moving.user_id} {moving.month}: never stood still, look again")
        print(f"{result.turns} turns, {result.accounts} accounts, {len(result.differences)} differences")
    return 1 if result.differences else 0
