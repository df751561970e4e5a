"""`minichat export`: has a user or a tenant exported, says how far that is, and fetches the files."""

import argparse
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from minichat.cli import target
from minichat.cli.output import table
from minichat.domain.erasure import BeingErased
from minichat.domain.export import DataExport, ExportNotFound
from minichat.domain.identity import Call, Caller, UserId
from minichat.moment import new_id, now
from minichat.services import exporting
from minichat.settings import Settings
from minichat.storage import exports

AT_A_TIME = timedelta(minutes=10)


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("export", help="export a user or a tenant", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    user = actions.add_parser("user", help="begin to export a user, and take it as far as it goes now")
    user.add_argument("user", metavar="USER", type=target.a_user, help="as their tokens name them")
    tenant = actions.add_parser("tenant", help="begin to export a whole tenant, and take it as far as it goes now")
    again = actions.add_parser("continue", help="take an export as far as it goes now; it also goes on by itself")
    again.add_argument("export", metavar="ID", help="the export, as `minichat export list` names it")
    fetch = actions.add_parser("fetch", help="fetch the files of an export that is ready")
    fetch.add_argument("export", metavar="ID", help="the export")
    fetch.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where; it is made if it is not there")
    listing = actions.add_parser("list", help="every export in a tenant, the oldest first")
    for action, run in ((user, _begin), (tenant, _begin), (again, _continue), (fetch, _fetch), (listing, _list)):
        action.add_argument("--tenant", type=target.a_tenant, required=True, help="the tenant")
        target.add_to(action)
        action.set_defaults(run=run)


def _begin(options: argparse.Namespace) -> int:
    """0 when it is ready, 1 when it goes on without this command, 2 when who is exported is being erased."""
    settings = target.connected(options)
    user_id: UserId | None = getattr(options, "user", None)
    call = Call(Caller(options.tenant, UserId("operator"), "system"), now(), new_id)
    try:
        made = exporting.accept(call, user_id, settings)
    except BeingErased as refusal:
        print(f"minichat: {refusal}", file=sys.stderr)
        return 2
    print(f"export {made.export_id}")
    options.export = made.export_id
    return _taken_on(options, settings)


def _continue(options: argparse.Namespace) -> int:
    settings = target.connected(options)
    return 2 if _found(options) is None else _taken_on(options, settings)


def _taken_on(options: argparse.Namespace, settings: Settings) -> int:
    deps = exporting.ExportingDeps(settings, now, new_id)
    stage = exporting.go_on(options.tenant, options.export, deps, ends_at=now() + AT_A_TIME)
    print(stage)
    return 0 if stage == "ready" else 1


def _fetch(options: argparse.Namespace) -> int:
    """1 when it is not ready."""
    settings = target.connected(options)
    found = _found(options)
    if found is None:
        return 2
    if found.state != "ready":
        print(f"minichat: the export is {found.state}", file=sys.stderr)
        return 1
    options.to.mkdir(parents=True, exist_ok=True)
    for link in exporting.links(found, now(), settings):
        with urlopen(link.url, timeout=60) as answer, (options.to / link.name).open("wb") as file:  # noqa: S310  ours
            shutil.copyfileobj(answer, file)
        print(options.to / link.name)
    return 0


def _list(options: argparse.Namespace) -> int:
    target.connected(options)
    rows = [
        (
            one.export_id,
            one.scope,
            one.user_id or "",
            one.requested_at.isoformat(timespec="seconds"),
            one.state,
            one.over_at.isoformat(timespec="seconds"),
        )
        for one in exports.of_tenant(options.tenant)
    ]
    print(table(("export", "scope", "user", "requested", "state", "until"), rows) if rows else "There is none.")
    return 0


def _found(options: argparse.Namespace) -> DataExport | None:
    try:
        return exporting.shown(options.tenant, options.export, now())
    except ExportNotFound as refusal:
        print(f"minichat: {refusal}", file=sys.stderr)
        return None
