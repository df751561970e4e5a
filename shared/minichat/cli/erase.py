"""`minichat erase`: erases a user or a tenant, says how far it is, and looks for what is left."""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from minichat.cli import target
from minichat.cli.output import ProgressLine, plain, table
from minichat.domain.erasure import Erasure, ErasureNotFound, ErasureRunning
from minichat.domain.identity import Call, Caller, UserId
from minichat.events import sqs
from minichat.moment import new_id, now
from minichat.services import erasing
from minichat.services.erase_check import Residue, residue
from minichat.services.erase_manifest import verifies
from minichat.settings import Settings, SettingsError
from minichat.storage import erasures
from minichat.storage.persons import Whose

AT_A_TIME = timedelta(minutes=10)


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("erase", help="erase a user or a tenant", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    user = actions.add_parser("user", help="begin to erase a user, and take it as far as it goes now")
    user.add_argument("user", metavar="USER", type=target.a_user, help="as their tokens name them")
    tenant = actions.add_parser("tenant", help="begin to erase a whole tenant, and take it as far as it goes now")
    tenant.add_argument("--yes", action="store_true", required=True, help="everything of all of its users")
    for action in (user, tenant):
        action.set_defaults(run=_begin)
    again = actions.add_parser("continue", help="take an erasure as far as it goes now; it also goes on by itself")
    again.set_defaults(run=_continue)
    show = actions.add_parser("show", help="how far an erasure is, what it waits for, and its manifest")
    show.set_defaults(run=_show)
    for action in (again, show):
        action.add_argument("erasure", metavar="ID", help="the erasure, as `minichat erase list` names it")
    listing = actions.add_parser("list", help="every erasure in a tenant, the oldest first")
    listing.set_defaults(run=_list)
    check = actions.add_parser("check", help="look for what is left of a user, or of a tenant, everywhere")
    check.add_argument("--user", type=target.a_user, help="this user only")
    check.add_argument("--json", action="store_true", help="print JSON instead of a table")
    check.set_defaults(run=_check)
    for action in (user, tenant, again, show, listing, check):
        action.add_argument("--tenant", type=target.a_tenant, required=True, help="the tenant")
        target.add_to(action)


def _signing(options: argparse.Namespace) -> Settings:
    """The deployment's settings. Raises SettingsError when nothing signs what an erasure leaves as proof."""
    settings = target.connected(options)
    if not settings.manifest_secret.get_secret_value():
        raise SettingsError("manifest_secret is not set: without it nothing is erased. See docs/reference/settings.md.")
    return settings


def _begin(options: argparse.Namespace) -> int:
    """0 when it is complete, 1 when it goes on without this command, 2 when it is running already."""
    settings = _signing(options)
    user_id: UserId | None = getattr(options, "user", None)
    call = Call(Caller(options.tenant, UserId("operator"), "system"), now(), new_id)
    try:
        erasure = erasing.accept(call, user_id, settings)
    except ErasureRunning as refusal:
        print(f"minichat: {refusal}", file=sys.stderr)
        return 2
    print(f"erasure {erasure.erasure_id}")
    return _taken_on(erasure, settings)


def _continue(options: argparse.Namespace) -> int:
    settings = _signing(options)
    found = _found(options)
    return 2 if found is None else _taken_on(found, settings)


def _taken_on(erasure: Erasure, settings: Settings) -> int:
    deps = erasing.ErasingDeps(settings, now, new_id)
    where = erasure.tenant_id, erasure.erasure_id
    stage = erasing.go_on(*where, deps, ends_at=now() + AT_A_TIME)
    after = erasing.shown(*where)
    print(stage if after.progress.waits_for is None else f"{stage}: {plain(after.progress.waits_for)}")
    return 0 if stage == "complete" else 1


def _show(options: argparse.Namespace) -> int:
    """1 when the manifest was not signed here."""
    settings = target.connected(options)
    found = _found(options)
    if found is None:
        return 2
    is_ours = found.manifest is None or verifies(found.manifest, settings)
    print(json.dumps({**asdict(found), "signature": "valid" if is_ours else "invalid"}, indent=2, default=str))
    return 0 if is_ours else 1


def _list(options: argparse.Namespace) -> int:
    target.connected(options)
    found = list(erasures.of_tenant(options.tenant))
    rows = [
        (
            one.erasure_id,
            one.scope,
            one.user_id or "",
            one.requested_at.isoformat(timespec="seconds"),
            "" if one.completed_at is None else one.completed_at.isoformat(timespec="seconds"),
            one.progress.waits_for or "",
        )
        for one in found
    ]
    print(
        table(("erasure", "scope", "user", "requested", "completed", "waits for"), rows) if rows else "There is none."
    )
    return 0


def _check(options: argparse.Namespace) -> int:
    """1 when something is left that does not go by itself."""
    settings = target.connected(options)
    sqs.connect(settings)
    found: list[Residue] = []
    with ProgressLine("found") as progress:
        for one in residue(Whose(options.tenant, options.user), settings, now()):
            found.append(one)
            progress.at(len(found))
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=2, default=str))
    elif not found:
        print("Nothing is left.")
    else:
        rows = [(one.place, one.what, one.why, one.until.isoformat() if one.until else "") for one in found]
        print(table(("where", "what", "why", "goes by itself"), rows))
    return 1 if any(one.until is None for one in found) else 0


def _found(options: argparse.Namespace) -> Erasure | None:
    try:
        return erasing.shown(options.tenant, options.erasure)
    except ErasureNotFound as refusal:
        print(f"minichat: {refusal}", file=sys.stderr)
        return None
