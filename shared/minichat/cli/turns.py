"""`minichat turns`: what runs now."""

import argparse
import json
from datetime import datetime
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.domain.turn import Turn
from minichat.moment import now
from minichat.storage import turn_lists


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("turns", help="what runs now", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    running = actions.add_parser("running", help="list running turns, the longest silent first")
    running.add_argument("--limit", type=int, default=100, help="at most so many (default 100)")
    running.add_argument("--json", action="store_true", help="print JSON instead of a table")
    target.add_to(running)
    running.set_defaults(run=_running)


def _running(options: argparse.Namespace) -> int:
    target.connected(options)
    moment = now()
    found = [_told(turn, moment) for turn in turn_lists.running_since(moment, limit=options.limit)]
    if options.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("Nothing runs.")
    else:
        print(table(tuple(found[0]), [tuple(one.values()) for one in found]))
    return 0


def _told(turn: Turn, moment: datetime) -> dict[str, object]:
    return {
        "age_seconds": round((moment - turn.started_at).total_seconds()),
        "silent_seconds": round((moment - turn.last_progress_at).total_seconds()),
        "tenant_id": turn.tenant_id,
        "user_id": turn.requester_user_id,
        "chat_id": turn.chat_id,
        "request_id": turn.request_id,
        "model": turn.reserve.effective_model,
        "reserved_micro": turn.reserve.credits_micro,
    }
