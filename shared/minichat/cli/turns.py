"""`minichat turns`: what runs now, and which turn a provider speaks of."""

import argparse
import json
import sys
from datetime import datetime
from heapq import nsmallest
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.domain.turn import Turn
from minichat.moment import now
from minichat.storage import keys, scan, turn_lists
from minichat.storage.unreadable import Unreadable


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("turns", help="running turns, and those of an id", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    running = actions.add_parser("running", help="list running turns, the longest silent first")
    running.add_argument("--limit", type=int, default=100, help="at most so many (default 100)")
    running.add_argument("--json", action="store_true", help="print JSON instead of a table")
    target.add_to(running)
    running.set_defaults(run=_running)
    find = actions.add_parser("find", help="find a turn by what its provider calls the answer; reads the whole table")
    find.add_argument("provider_response_id", metavar="ID", help="as the provider's own logs and support name it")
    find.add_argument("--tenant", type=target.a_tenant, help="only of this one")
    target.add_to(find)
    find.set_defaults(run=_find)


def _running(options: argparse.Namespace) -> int:
    """1 when some cannot be read."""
    target.connected(options)
    moment = now()
    running, unreadable = [], []
    for shard in keys.RUNNING_SHARDS:
        for page in turn_lists.running_since(moment, shard):
            running += [turn for turn in page if isinstance(turn, Turn)]
            unreadable += [one for one in page if isinstance(one, Unreadable)]
    silent_first = nsmallest(options.limit, running, key=lambda turn: turn.last_progress_at)
    found = [_told(turn, moment) for turn in silent_first]
    for one in unreadable:
        print(f"{one.key.pk} {one.key.sk} cannot be read: {one.reason}", file=sys.stderr)
    if options.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("Nothing runs.")
    else:
        print(table(tuple(found[0]), [tuple(one.values()) for one in found]))
    return 1 if unreadable else 0


def _find(options: argparse.Namespace) -> int:
    """1 when there is none."""
    target.connected(options)
    found = [
        {
            "tenant_id": turn.tenant_id,
            "user_id": turn.requester_user_id,
            "chat_id": turn.chat_id,
            "request_id": turn.request_id,
            "turn_id": turn.turn_id,
            "model": turn.reserve.effective_model,
            "state": turn.state.value,
            "started_at": turn.started_at.isoformat(),
        }
        for turn in scan.records(options.tenant)
        if isinstance(turn, Turn) and turn.provider_response_id == options.provider_response_id
    ]
    print(json.dumps(found, indent=2))
    return 0 if found else 1


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
