"""`minichat outbox`: events that were written, sent once more."""

import argparse
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Any, get_args

from minichat.cli import target
from minichat.cli.output import ProgressLine
from minichat.events import sqs
from minichat.events.base import Queue
from minichat.moment import new_id, now
from minichat.services.redrive import Range, republish


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("outbox", help="events on their way out", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    again = actions.add_parser(
        "republish",
        help="send stored events again",
        description="Sends events of the last seven days again. Consumers take each for what it is: seen, or lost.",
    )
    again.add_argument("--since", type=instant, required=True, help="RFC 3339, or a day")
    again.add_argument("--until", type=instant, help="RFC 3339, or a day; not included (default: now)")
    again.add_argument("--tenant", type=target.a_tenant, help="this tenant only")
    again.add_argument("--queue", choices=get_args(Queue), help="this queue only")
    again.add_argument("--dry-run", action="store_true", help="count them, and send nothing")
    target.add_to(again)
    again.set_defaults(run=_republish)


def instant(text: str) -> datetime:
    """A moment of RFC 3339, or the first one of a day; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment such as 2026-11-21T09:30:00Z, and no day") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _republish(options: argparse.Namespace) -> int:
    settings = target.connected(options)
    sqs.connect(settings)
    moment = now()
    wanted = Range(options.since, options.until or moment, options.tenant, options.queue)
    sent: Counter[str] = Counter()
    with ProgressLine("events") as progress:
        for batch in republish(wanted, settings.queues, again=new_id(moment), dry_run=options.dry_run):
            sent += batch
            progress.at(sent.total())
    refused, unsent = sent.pop("refused", 0), sent.pop("unsent", 0)
    for queue, count in sorted(sent.items()):
        print(f"{queue}: {count}")
    print(f"{sent.total()} events {'would be sent' if options.dry_run else 'sent'}, {refused} refused")
    if unsent:
        print(f"{unsent} were not taken now: send the same range again", file=sys.stderr)
    return 1 if refused or unsent else 0
