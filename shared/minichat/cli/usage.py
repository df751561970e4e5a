"""`minichat usage`: what a tenant has used, from the ledger's totals."""

import argparse
import csv
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from minichat.cli import target
from minichat.cli.output import table

DAYS = 93
"""That one answer covers at most."""
_NAMES = {"day": "day", "user": "user_id", "model": "model"}


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("usage", help="what a tenant has used", description=__doc__)
    parser.add_argument("--tenant", type=target.a_tenant, required=True, help="as its tokens say it")
    parser.add_argument(
        "--from", dest="since", type=day, required=True, metavar="DAY", help="the first day, such as 2026-11-21"
    )
    parser.add_argument("--to", dest="until", type=day, required=True, metavar="DAY", help="the last day")
    parser.add_argument("--by", choices=tuple(_NAMES), default="day", help="a row per day (default), user or model")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    target.add_api_to(parser)
    parser.set_defaults(run=run)


def day(text: str) -> date:
    """A day as YYYY-MM-DD."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day as YYYY-MM-DD") from None


def run(options: argparse.Namespace) -> int:
    """Prints the rows and their sum; micro-credits are what the turns were charged. 1 when a total cannot be read."""
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    everything: Counter[str] = Counter()
    unreadable = 0
    with target.operating(options) as api:
        for since, until in _spans(options.since, options.until):
            span = {"from": since.isoformat(), "to": until.isoformat(), "by": options.by}
            told = api.call("GET", "tenants", options.tenant, "usage", **span)
            unreadable += told["unreadable"]
            for row in told["items"]:
                used = Counter({name: count for name, count in row.items() if isinstance(count, int)})
                rows[row[_NAMES[options.by]]].update(used)
                everything.update(used)
    _print(options, rows, everything)
    if not rows:
        print(f"minichat: nothing is booked for the tenant {options.tenant!a} on these days", file=sys.stderr)
    if unreadable:
        print(f"{unreadable} totals cannot be read, and are not in the rows", file=sys.stderr)
    return 1 if unreadable else 0


def _spans(since: date, until: date) -> Iterator[tuple[date, date]]:
    while True:
        last = min(until, since + timedelta(days=DAYS - 1))
        yield since, last
        if last >= until:
            return
        since = last + timedelta(days=1)


def _print(options: argparse.Namespace, rows: dict[str, Counter[str]], everything: Counter[str]) -> None:
    head = [*everything] or ["turns", "credits_micro"]
    if options.format == "json":
        print(json.dumps([{options.by: name, **used} for name, used in rows.items()], indent=2))
    elif options.format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([options.by, *head])
        writer.writerows([name, *(used[column] for column in head)] for name, used in rows.items())
    else:
        cells = [(name, *(used[column] for column in head)) for name, used in [*rows.items(), ("together", everything)]]
        print(table((options.by, *(name.replace("_", " ") for name in head)), cells))
