"""`minichat dlq`: what nobody could handle, why, and another try."""

import argparse
import json
import sys
from itertools import islice
from typing import Any

from minichat.cli import target
from minichat.cli.output import ProgressLine, table
from minichat.settings import SettingsError

SHOWN = 20
MOST = 100
"""Messages that one answer has."""
AT_ONCE = 500
"""Messages that one request sends again."""


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("dlq", help="dead-letter queues", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="how much waits in each queue and in its dead-letter queue")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="the messages of a dead-letter queue, with the reasons")
    show.add_argument("--limit", type=int, default=SHOWN, help=f"at most so many (default {SHOWN})")
    show.add_argument("--json", action="store_true", help="print JSON instead of a table")
    show.add_argument(
        "--whole", action="store_true", help="print whole messages as JSON: the API tells none, so this needs AWS"
    )
    show.set_defaults(run=_show)
    again = actions.add_parser("redrive", help="send messages of a dead-letter queue to their queue again")
    again.add_argument("--event", help="that event alone, by its id")
    again.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    again.set_defaults(run=_redrive)
    for action in (show, again):
        action.add_argument("queue", metavar="QUEUE", help="a queue, as `minichat dlq list` names it")
    for action in (listing, show, again):
        target.add_api_to(action)


def _list(options: argparse.Namespace) -> int:
    with target.operating(options) as api:
        found = api.call("GET", "dead_letters")["items"]
    names = ("queue", "waiting", "in_flight", "dead", "looked_at")
    rows = [tuple("" if one[name] is None else one[name] for name in names) for one in found]
    print(table(tuple(name.replace("_", " ") for name in names), rows))
    return 0


def _show(options: argparse.Namespace) -> int:
    if options.whole:
        return _whole(options)
    with target.operating(options) as api:
        found = api.call("GET", "dead_letters", options.queue, limit=min(options.limit, MOST))["items"]
    if options.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("Nothing is there.")
    else:
        names = ("since", "event_type", "event_id", "tenant_id", "reason")
        print(table(names, [tuple(one[name] or "" for name in names) for one in found]))
    return 0


def _whole(options: argparse.Namespace) -> int:
    """The messages with their bodies, from the queue itself."""
    from minichat.events import dead_letters, sqs  # noqa: PLC0415  SQS's client, which no other action needs

    if options.api:
        raise SettingsError("--whole reads the queue itself: it takes no --api.")
    settings = target.connected(options)
    sqs.connect(settings)
    if (url := settings.queues.dead_letters.get(options.queue)) is None:
        raise SettingsError(f"There is no queue {options.queue!r}: MINICHAT_QUEUES__DEAD_LETTERS names them.")
    letters: list[dead_letters.DeadLetter] = []
    try:
        letters += islice(dead_letters.waiting(url), options.limit)
    finally:
        for letter in letters:
            dead_letters.release(url, letter)
    print(json.dumps([{"sent_at": x.sent_at.isoformat(), **x.attributes, "body": x.body} for x in letters], indent=2))
    return 0


def _redrive(options: argparse.Namespace) -> int:
    """1 when some could not be sent; those stay in their queue."""
    sent = failed = 0
    with target.operating(options) as api, ProgressLine("messages") as progress:
        if options.dry_run:
            return _would_be_sent(api.call("GET", "dead_letters", options.queue, limit=MOST)["items"], options)
        only = {} if options.event is None else {"event_id": options.event}
        handled = AT_ONCE
        # A message that failed is tried again only by a later command: it is hidden for a while.
        while handled >= AT_ONCE:
            told = api.call("POST", "dead_letters", options.queue, "redrive", **only)
            handled = told["sent"] + told["failed"]
            sent, failed = sent + told["sent"], failed + told["failed"]
            progress.at(sent)
            if not told["sent"]:
                break
    print(f"{sent} sent to {options.queue}")
    if failed:
        print(f"{failed} could not be sent and stay", file=sys.stderr)
    return 1 if failed else 0


def _would_be_sent(letters: list[dict[str, Any]], options: argparse.Namespace) -> int:
    found = [one for one in letters if options.event in (None, one["event_id"])]
    for one in found:
        print(one["event_id"] or "-", one["reason"])
    more = " or more" if len(letters) == MOST else ""
    print(f"{len(found)}{more} would be sent to {options.queue}")
    return 0
