"""`minichat policy`: models, prices, limits and kill switches, as versions that never change.

Without an option a command is for the deployment's policy; `--tenant` names a tenant's layer of it, and `--tenant` with
`--user` a user's.
"""

import argparse
import getpass
import json
import sys
from pathlib import Path
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.domain.errors import InvalidRequest
from minichat.domain.identity import TenantId, UserId
from minichat.domain.policy import Policy
from minichat.moment import new_id, now
from minichat.services import policy_layers
from minichat.services.policy_in_force import policy_file
from minichat.services.policy_layers import Publisher
from minichat.services.provider_config import in_force
from minichat.settings import Settings, current, read_document
from minichat.storage import policies
from minichat.storage.policies import DEPLOYMENT, Place


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("policy", help="models, prices, limits, kill switches", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    validate = actions.add_parser("validate", help="check a policy file without publishing it")
    validate.add_argument("file", type=Path, help="JSON or YAML")
    validate.set_defaults(run=_validate)

    diff = actions.add_parser("diff", help="show what publishing a policy file would change")
    diff.add_argument("file", type=Path, help="JSON or YAML")
    diff.set_defaults(run=_diff)

    publish = actions.add_parser("publish", help="put a policy in force; instances follow within seconds")
    publish.add_argument("file", type=Path, help="JSON or YAML")
    publish.set_defaults(run=_publish)

    withdraw = actions.add_parser("withdraw", help="let a tenant's or a user's layer inherit everything again")
    withdraw.set_defaults(run=_publish, file=None)

    show = actions.add_parser("show", help="print a version as JSON")
    show.add_argument("version", type=int, nargs="?", help="default: the one in force")
    show.set_defaults(run=_show)

    history = actions.add_parser("history", help="list the versions, the newest first")
    history.set_defaults(run=_history)

    for action in (publish, withdraw):
        action.add_argument("--by", default=None, help="who publishes (default: the login name)")
    for action in (validate, diff, publish, withdraw, show, history):
        action.add_argument("--tenant", type=TenantId, help="a tenant's layer, by its UUID")
        action.add_argument("--user", type=UserId, help="the layer of a user of that tenant, by their UUID")
        target.add_to(action)


def _validate(options: argparse.Namespace) -> int:
    if options.tenant is not None or options.user is not None:
        settings, place = target.connected(options), _place(options)
        return 2 if place is None else _told(options, lambda: _valid(options, place, settings))
    named = target.is_local(options) or options.stack is not None
    policy = policy_file(options.file, in_force(target.connected(options)) if named else current())
    print(f"{options.file}: version {policy.policy_version}, {len(policy.model_catalog)} models, valid")
    if not policy.enabled_models():
        print(f"{options.file}: no model is enabled: nobody can start a chat", file=sys.stderr)
    return 0


def _valid(options: argparse.Namespace, place: Place[Any], settings: Settings) -> None:
    policy_layers.checked(read_document("policy", options.file), place, settings)
    print(f"{options.file}: valid for the {place.layer}")


def _diff(options: argparse.Namespace) -> int:
    settings, place = target.connected(options), _place(options)

    def differ() -> None:
        assert place is not None
        found = policy_layers.compared(read_document("policy", options.file), place, settings)
        print(
            table(("member", "in force", "published then"), [(x.path, _said(x.before), _said(x.after)) for x in found])
        )

    return 2 if place is None else _told(options, differ)


def _publish(options: argparse.Namespace) -> int:
    settings, place = target.connected(options), _place(options)
    if place is None:
        return 2
    moment = now()
    publisher = Publisher(options.by or getpass.getuser(), moment, new_id(moment))

    def publish() -> None:
        assert place is not None
        if place is DEPLOYMENT and options.file is not None:
            policy_file(options.file, in_force(settings))  # names what is wrong as the start of a deployment does
        document = None if options.file is None else read_document("policy", options.file)
        version = policy_layers.publish(document, place, settings, publisher)
        follow = "at the user's next send" if place.user_id else f"in {settings.policy_refresh_seconds:g} s"
        print(f"Version {version} is in force; instances follow {follow}.")

    return _told(options, publish)


def _told(options: argparse.Namespace, do: Any) -> int:
    """The exit code of an action; what it refuses is printed, a line for each wrong member."""
    try:
        do()
    except policies.VersionTaken as taken:
        print(
            f"minichat: policy_version: {taken.wanted} cannot follow version {taken.current}, which stays in force: "
            "versions only go up, and none ever changes.",
            file=sys.stderr,
        )
        return 2
    except InvalidRequest as error:
        for wrong in error.errors:
            print(f"minichat: {options.file}: {wrong.field}: {wrong.message}".replace(": : ", ": "), file=sys.stderr)
        return 2
    return 0


def _place(options: argparse.Namespace) -> Place[Any] | None:
    """The layer that a command is for; None, with a message, for a user of no tenant."""
    if options.user is not None and options.tenant is None:
        print("minichat: --user needs --tenant: users are a tenant's.", file=sys.stderr)
        return None
    if options.tenant is None:
        return DEPLOYMENT
    return (
        policies.of_tenant(options.tenant) if options.user is None else policies.of_user(options.tenant, options.user)
    )


def _show(options: argparse.Namespace) -> int:
    target.connected(options)
    if (place := _place(options)) is None:
        return 2
    published = policy_layers.shown(place, options.version)
    if published is None:
        what = "No policy was published yet" if options.version is None else f"There is no version {options.version}"
        print(f"minichat: {what}.", file=sys.stderr)
        return 2
    layer = published.policy
    # Of a layer only what it says: the rest it inherits.
    print(layer.model_dump_json(indent=2, exclude_unset=not isinstance(layer, Policy)))
    return 0


def _history(options: argparse.Namespace) -> int:
    target.connected(options)
    if (place := _place(options)) is None:
        return 2
    in_force = policies.current_version(place)
    rows = [
        (
            f"{one.version}{' *' if one.version == in_force else ''}",
            f"{one.at:%Y-%m-%d %H:%M:%S}Z",
            one.by,
            *_columns(one),
        )
        for one in policies.history(place)
    ]
    columns = ("models", "switched off") if place is DEPLOYMENT else ("says",)
    print(table(("version", "published", "by", *columns), rows))
    return 0


def _columns(one: policies.Published[Any]) -> tuple[object, ...]:
    layer = one.policy
    if isinstance(layer, Policy):
        return len(layer.model_catalog), ", ".join(name for name, on in layer.kill_switches if on) or "-"
    said = sorted(layer.model_fields_set - {"policy_version"})
    return ("withdrawn" if one.withdrawn else ", ".join(said) or "nothing",)


def _said(value: object) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)
