"""`minichat cleanup`: what was deleted and may still be at a provider, and another try."""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.events import sqs
from minichat.moment import new_id, now
from minichat.services.provider_leftovers import Leftover, leftovers, try_again
from minichat.settings import Settings


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("cleanup", help="what was deleted and may still be at a provider", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what is not cleaned up, the oldest first")
    listing.add_argument("--json", action="store_true", help="print JSON instead of a table")
    listing.set_defaults(run=_list)
    again = actions.add_parser("again", help="have all of it tried once more")
    again.set_defaults(run=_again)
    for action in (listing, again):
        action.add_argument("--tenant", type=target.a_tenant, help="this tenant only")
        action.add_argument(
            "--hours", type=int, default=24, help="what was deleted so long ago (default 24): its own attempts are over"
        )
        target.add_to(action)


def _list(options: argparse.Namespace) -> int:
    """1 when something is left."""
    target.connected(options)
    found = _found(options)
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=2, default=str))
    elif not found:
        print("Nothing is left.")
    else:
        rows = [
            (x.deleted_at.isoformat(timespec="seconds"), x.tenant_id, x.chat_id, x.what, x.attempts, x.reason or "")
            for x in found
        ]
        print(table(("deleted", "tenant", "chat", "what", "attempts", "reason"), rows))
    return 1 if found else 0


def _again(options: argparse.Namespace) -> int:
    settings: Settings = target.connected(options)
    sqs.connect(settings)
    sent = [taken for _, taken in try_again(_found(options), settings.queues, now(), new_id)]
    print(f"{sum(sent)} sent to their cleanup again")
    if not all(sent):
        print(f"{sent.count(False)} were not taken now: try again", file=sys.stderr)
    return 0 if all(sent) else 1


def _found(options: argparse.Namespace) -> list[Leftover]:
    return leftovers(now() - timedelta(hours=options.hours), options.tenant)
