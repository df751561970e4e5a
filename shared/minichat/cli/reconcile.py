"""`minichat reconcile`: recomputes from the turns what quota, usage ledger and audit trail must say, and names each
difference."""

import argparse
import json
from typing import Any

from minichat.cli import target
from minichat.cli.output import plain, table
from minichat.settings import SettingsError


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "reconcile", help="compare quota, usage ledger and audit trail with the turns", description=__doc__
    )
    parser.add_argument("--tenant", type=target.a_tenant, help="this tenant only")
    parser.add_argument(
        "--settled-seconds", type=int, default=300, help="ledger and audit: turns that ended so long ago (default 300)"
    )
    parser.add_argument("--repair", action="store_true", help="set what differs to what it should say")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--reports", action="store_true", help="print what the latest daily runs have found, and compare nothing"
    )
    target.add_api_to(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when everything agrees, 1 when something differs or cannot be read. The audit trail is read where it is a
    folder."""
    if options.reports:
        return _reports(options)
    if options.api:
        raise SettingsError("Comparing reads the whole table: it takes no --api, unless with --reports.")
    from minichat.cli.comparing import compare  # noqa: PLC0415  storage, which reports need not

    return compare(options)


def _reports(options: argparse.Namespace) -> int:
    """1 when the latest run has found something."""
    path = ("reconcile",) if options.tenant is None else ("tenants", options.tenant, "reconcile")
    with target.operating(options) as api:
        runs = api.call("GET", *path)["items"]
    if options.json:
        print(json.dumps(runs, indent=2))
    else:
        found = [", ".join(f"{kind} {count}" for kind, count in one["counts"].items()) for one in runs]
        print(table(("run", "found"), [(one["at"], what or "-") for one, what in zip(runs, found, strict=True)]))
        for one in runs[0]["findings"] if runs else ():
            said = "" if one["says"] is None else f": {one['says']} instead of {one['should_say'] or 'something else'}"
            print(plain(f"{one['kind']} {one['tenant_id'] or ''} {one['where']}{said}"))
    return 1 if runs and runs[0]["counts"] else 0
