"""`minichat usage`: what a tenant has used, from the ledger's totals."""

import argparse
import csv
import json
import sys
from collections import defaultdict
from dataclasses import asdict, fields
from datetime import date
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.domain.usage_ledger import LedgerSums, Total
from minichat.storage import usage_ledger
from minichat.storage.unreadable import Unreadable

_HEAD = [field.name for field in fields(LedgerSums)]


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("usage", help="what a tenant has used", description=__doc__)
    parser.add_argument("--tenant", type=target.a_tenant, required=True, help="as its tokens say it")
    parser.add_argument(
        "--from", dest="since", type=day, required=True, metavar="DAY", help="the first day, such as 2026-11-21"
    )
    parser.add_argument("--to", dest="until", type=day, required=True, metavar="DAY", help="the last day")
    parser.add_argument("--by", choices=("day", "user"), default="day", help="a row per day (default) or per user")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    target.add_to(parser)
    parser.set_defaults(run=run)


def day(text: str) -> date:
    """A day as YYYY-MM-DD."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day as YYYY-MM-DD") from None


def run(options: argparse.Namespace) -> int:
    """Prints the rows and their sum; micro-credits are what the turns were charged. 1 when a total cannot be read."""
    target.connected(options)
    unread: list[Unreadable] = []
    found = usage_ledger.totals(options.tenant, options.since.isoformat(), options.until.isoformat(), unread)
    rows = _rows(list(found), options.by)
    if not rows:
        print(f"minichat: nothing is booked for the tenant {options.tenant!a} on these days", file=sys.stderr)
    for one in unread:
        print(f"{one.key.pk} {one.key.sk} cannot be read, and is not in the rows: {one.reason}", file=sys.stderr)
    if options.format == "json":
        print(json.dumps([{options.by: name, **asdict(used)} for name, used in rows.items()], indent=2))
    elif options.format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([options.by, *_HEAD])
        writer.writerows([name, *asdict(used).values()] for name, used in rows.items())
    else:
        everything = sum(rows.values(), LedgerSums())
        cells = [(name, *asdict(used).values()) for name, used in {**rows, "together": everything}.items()]
        print(table((options.by, *(name.replace("_", " ") for name in _HEAD)), cells))
    return 1 if unread else 0


def _rows(found: list[Total], by: str) -> dict[str, LedgerSums]:
    rows: defaultdict[str, LedgerSums] = defaultdict(LedgerSums)
    for total in found:
        if by == "day" and total.user_id is None:
            rows[total.day] += total.used
        elif by == "user" and total.user_id is not None:
            rows[total.user_id] += total.used
    return dict(rows)
