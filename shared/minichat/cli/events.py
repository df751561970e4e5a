"""`minichat events`: what happened to a turn, in order, as the logs of the local stack tell it.

One trace id follows the request through the outbox and its queue to the consumers.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from minichat.local.tables import project_root

LOGS = ("server.log", "sources.log")
FOLLOW_SECONDS = 0.2
_NAMES = ("chat_id", "turn_id", "request_id", "trace_id")

Line = dict[str, Any]


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("events", help="what happened", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    tail = actions.add_parser("tail", help="requests, events and what consumers made of them, in order")
    tail.add_argument("id", nargs="?", help="of a chat, a turn, a request or a trace: only what belongs to it")
    tail.add_argument("--follow", "-f", action="store_true", help="go on until Ctrl-C")
    tail.add_argument("--json", action="store_true", help="print the log lines themselves")
    tail.add_argument("--state", type=Path, help="the local stack that runs with this state folder")
    tail.set_defaults(run=_tail)


def _tail(options: argparse.Namespace) -> int:
    folder = (options.state or project_root() / ".minichat").resolve() / "logs"
    files = [(folder / name).open(encoding="utf-8", errors="replace") for name in LOGS if (folder / name).exists()]
    if not files:
        raise FileNotFoundError(f"{folder} has no logs: start the local stack with `minichat dev`.")
    traces: set[str] = set()
    try:
        while True:
            for line in _new(files):
                if _belongs(line, options.id, traces):
                    print(json.dumps(line) if options.json else _told(line), flush=True)
            if not options.follow:
                return 0
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        return 0


def _new(files: list[TextIO]) -> list[Line]:
    """The lines logged since the last call, by time; one line for each event that the relay has sent."""
    lines = [line for file in files for line in _parsed(file)]
    return sorted(lines, key=lambda line: str(line["timestamp"]))


def _parsed(file: TextIO) -> Iterator[Line]:
    while True:
        place = file.tell()
        text = file.readline()
        if not text.endswith("\n"):
            file.seek(place)  # the rest of it is still to come
            return
        if not text.startswith("{"):
            continue
        line = json.loads(text)
        if line.get("message") == "relayed":
            yield from ({**event, "message": "relayed", "timestamp": line["timestamp"]} for event in line["events"])
        elif line.get("message") in {"request", "consumed"}:
            yield line


def _belongs(line: Line, wanted: str | None, traces: set[str]) -> bool:
    if wanted is None:
        return True
    if wanted in (line.get(name) for name in _NAMES):
        traces.add(line.get("trace_id", ""))
        return True
    return bool(line.get("trace_id")) and line["trace_id"] in traces


def _told(line: Line) -> str:
    at = str(line["timestamp"]).replace(",", ".")[11:23]
    if line["message"] == "request":
        what = f"{line['method']} {line['path']} {line['status']} in {line['total_ms']} ms"
    elif line["message"] == "relayed":
        what = f"{line['event_type']} to {line['queue']}"
    else:
        what = f"{line.get('event_type')} at {line['queue']}: {line['result']}"
        what += f", attempt {line['attempt']}" if line["attempt"] > 1 else ""
        what += f" ({line['reason']})" if "reason" in line else ""
    known = [f"{name.removesuffix('_id')} {line[name]}" for name in (*_NAMES, "event_id") if line.get(name)]
    return f"{at}  {line['message']:9}{what}  {'  '.join(known)}"
