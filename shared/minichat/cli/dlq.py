"""`minichat dlq`: what nobody could handle, why, and another try."""

import argparse
import json
import sys
from itertools import islice
from typing import Any

from minichat.cli import target
from minichat.cli.output import ProgressLine, table
from minichat.events import dead_letters, sqs
from minichat.events.dead_letters import DeadLetter
from minichat.moment import now
from minichat.services.redrive import redrive
from minichat.settings import Settings, SettingsError

SHOWN = 20


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("dlq", help="dead-letter queues", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="how much waits in each queue and in its dead-letter queue")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="the messages of a dead-letter queue, with the reasons")
    show.add_argument("--limit", type=int, default=SHOWN, help=f"at most so many (default {SHOWN})")
    show.add_argument("--json", action="store_true", help="print whole messages as JSON")
    show.set_defaults(run=_show)
    again = actions.add_parser("redrive", help="send messages of a dead-letter queue to their queue again")
    again.add_argument("--event", help="that event alone, by its id")
    again.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    again.set_defaults(run=_redrive)
    for action in (show, again):
        action.add_argument("queue", metavar="QUEUE", help="a queue, as `minichat dlq list` names it")
    for action in (listing, show, again):
        target.add_to(action)


def _list(options: argparse.Namespace) -> int:
    settings = _connected(options)
    rows = []
    for name, url in settings.queues.dead_letters.items():
        dead, looked_at = dead_letters.depth(url)
        waiting, in_flight = (
            dead_letters.depth(settings.queues.urls[name]) if name in settings.queues.urls else ("", "")
        )
        rows.append((name, waiting, in_flight, dead, looked_at))
    print(table(("queue", "waiting", "in flight", "dead", "looked at"), rows))
    return 0


def _show(options: argparse.Namespace) -> int:
    url = _dead_letters(_connected(options), options.queue)
    letters: list[DeadLetter] = []
    try:
        letters += islice(dead_letters.waiting(url), options.limit)
    finally:
        for letter in letters:
            dead_letters.release(url, letter)
    if options.json:
        print(
            json.dumps([{"sent_at": x.sent_at.isoformat(), **x.attributes, "body": x.body} for x in letters], indent=2)
        )
    elif not letters:
        print("Nothing is there.")
    else:
        rows = [
            (at.sent_at.isoformat(timespec="seconds"), *(at.attributes.get(name, "") for name in _NAMES), at.reason)
            for at in letters
        ]
        print(table(("since", *_NAMES, "reason"), rows))
    return 0


_NAMES = ("event_type", "event_id", "tenant_id")


def _redrive(options: argparse.Namespace) -> int:
    """1 when some could not be sent; those stay in their queue."""
    settings = _connected(options)
    _dead_letters(settings, options.queue)
    count = failed = 0
    with ProgressLine("messages") as progress:
        for letter, fate in redrive(
            options.queue,
            settings.queues,
            now(),
            only=options.event,
            dry_run=options.dry_run,
        ):
            count += fate != "failed"
            failed += fate == "failed"
            progress.at(count)
            if options.dry_run:
                print(letter.attributes.get("event_id", "-"), letter.reason)
    print(f"{count} {'would be sent' if options.dry_run else 'sent'} to {options.queue}")
    if failed:
        print(f"{failed} could not be sent and stay", file=sys.stderr)
    return 1 if failed else 0


def _connected(options: argparse.Namespace) -> Settings:
    settings = target.connected(options)
    sqs.connect(settings)
    if not settings.queues.dead_letters:
        raise SettingsError("MINICHAT_QUEUES__URLS and …__DEAD_LETTERS are not set: they are outputs of the stack.")
    return settings


def _dead_letters(settings: Settings, queue: str) -> str:
    if queue not in settings.queues.dead_letters:
        raise SettingsError(f"There is no queue {queue!r}: choose {', '.join(settings.queues.dead_letters)}.")
    return settings.queues.dead_letters[queue]
