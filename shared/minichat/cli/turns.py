"""`minichat turns`: what runs now, and which turn a provider speaks of."""

import argparse
import json
import sys
from datetime import datetime
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.domain.turn import Turn
from minichat.moment import now


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("turns", help="running turns, and those of an id", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    running = actions.add_parser("running", help="list running turns, the longest silent first")
    running.add_argument("--limit", type=int, default=100, help="at most so many (default 100)")
    running.add_argument("--tenant", type=target.a_tenant, help="only of this one")
    running.add_argument("--json", action="store_true", help="print JSON instead of a table")
    running.set_defaults(run=_running)
    cancel = actions.add_parser("cancel", help="ask a running turn to stop, as its owner can")
    cancel.add_argument("--tenant", type=target.a_tenant, required=True, help="whose turn it is")
    cancel.add_argument("chat_id", metavar="CHAT", help="its chat")
    cancel.add_argument("request_id", metavar="REQUEST", help="its request id; `minichat turns running` names both")
    cancel.set_defaults(run=_cancel)
    for action in (running, cancel):
        target.add_api_to(action)
    find = actions.add_parser("find", help="find a turn by what its provider calls the answer; reads the whole table")
    find.add_argument("provider_response_id", metavar="ID", help="as the provider's own logs and support name it")
    find.add_argument("--tenant", type=target.a_tenant, help="only of this one")
    target.add_to(find)
    find.set_defaults(run=_find)


def _running(options: argparse.Namespace) -> int:
    """1 when some cannot be read."""
    path = ("running_turns",) if options.tenant is None else ("tenants", options.tenant, "running_turns")
    with target.operating(options) as api:
        told, moment = api.call("GET", *path), now()
    found = [_told(turn, moment) for turn in told["items"][: options.limit]]
    if told["unreadable"]:
        print(f"{told['unreadable']} turns cannot be read", file=sys.stderr)
    if options.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("Nothing runs.")
    else:
        print(table(tuple(found[0]), [tuple(one.values()) for one in found]))
    return 1 if told["unreadable"] else 0


def _cancel(options: argparse.Namespace) -> int:
    turn = ("tenants", options.tenant, "running_turns", options.chat_id, options.request_id)
    with target.operating(options) as api:
        api.call("POST", *turn, "cancel")
    print("The turn is asked to stop.")
    return 0


def _find(options: argparse.Namespace) -> int:
    """1 when there is none."""
    from minichat.storage import scan  # noqa: PLC0415  which who talks to an API has not

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


def _told(turn: dict[str, Any], moment: datetime) -> dict[str, object]:
    named = ("tenant_id", "user_id", "chat_id", "request_id", "model", "reserved_micro")
    return {
        "age_seconds": _since(turn["started_at"], moment),
        "silent_seconds": _since(turn["last_progress_at"], moment),
        **{name: turn[name] for name in named},
    }


def _since(instant: str, moment: datetime) -> int:
    return round((moment - datetime.fromisoformat(instant)).total_seconds())
