"""`minichat policy`: models, prices, limits and kill switches, as versions that never change.

Without an option a command is for the deployment's policy; `--tenant` names a tenant's layer of it, and `--tenant` with
`--user` a user's.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from minichat.cli import target, versions
from minichat.cli.output import table
from minichat.settings import SettingsError, current, read_document


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("policy", help="models, prices, limits, kill switches", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    validate = actions.add_parser(
        "validate", help="check a policy file without publishing it; one of the deployment's needs no deployment"
    )
    validate.add_argument("file", type=Path, help="JSON or YAML")
    validate.set_defaults(run=_validate)

    diff = actions.add_parser("diff", help="show what publishing a policy file would change")
    diff.add_argument("file", type=Path, help="JSON or YAML")
    diff.set_defaults(run=_diff)

    publish = actions.add_parser("publish", help="put a policy in force; instances follow within seconds")
    publish.add_argument("file", type=Path, help="JSON or YAML")
    publish.set_defaults(run=_publish)

    withdraw = actions.add_parser("withdraw", help="let a tenant's or a user's layer inherit everything again")
    withdraw.set_defaults(run=_withdraw)

    show = actions.add_parser("show", help="print a version as JSON")
    show.add_argument("version", type=int, nargs="?", help="default: the one in force")
    show.set_defaults(run=_show)

    history = actions.add_parser("history", help="list the versions, the newest first")
    history.set_defaults(run=_history)

    for action in (publish, withdraw):
        versions.add_by_to(action)
    for action in (validate, diff, publish, withdraw, show, history):
        action.add_argument("--tenant", type=target.a_tenant, help="a tenant's layer, as its tokens say it")
        action.add_argument("--user", help="the layer of a user of that tenant, as their tokens say it")
        target.add_api_to(action)


def _validate(options: argparse.Namespace) -> int:
    place = _place(options)
    if place != ("policy",) or target.names_one(options):
        document = read_document("policy", options.file)
        with target.operating(options) as api:
            api.call("POST", *place, "validate", body=document)
        numbered = f"version {document['policy_version']}, " if "policy_version" in document else ""
        print(f"{options.file}: {numbered}valid")
        return 0
    from minichat.services.policy_in_force import policy_file  # noqa: PLC0415  storage, which an API needs not

    policy = policy_file(options.file, current())
    print(f"{options.file}: version {policy.policy_version}, {len(policy.model_catalog)} models, valid")
    if not policy.enabled_models():
        print(f"{options.file}: no model is enabled: nobody can start a chat", file=sys.stderr)
    return 0


def _diff(options: argparse.Namespace) -> int:
    with target.operating(options) as api:
        found = api.call("POST", *_place(options), "diff", body=read_document("policy", options.file))["items"]
    print(
        table(
            ("member", "in force", "published then"),
            [(one["path"], _said(one["before"]), _said(one["after"])) for one in found],
        )
    )
    return 0


def _publish(options: argparse.Namespace) -> int:
    place = _place(options)
    with target.operating(options) as api:
        made = api.call("POST", *place, "versions", body=read_document("policy", options.file))
    _print_published(made, place)
    return 0


def _withdraw(options: argparse.Namespace) -> int:
    place = _place(options)
    if place == ("policy",):
        raise SettingsError("The deployment's policy inherits from nothing: it stays. --tenant names a layer.")
    with target.operating(options) as api:
        _print_published(api.call("DELETE", *place), place)
    return 0


def _show(options: argparse.Namespace) -> int:
    return versions.show(options, _place(options), "policy")


def _history(options: argparse.Namespace) -> int:
    place = _place(options)
    columns = ("models", "switched off") if place == ("policy",) else ("says",)
    return versions.history(options, place, columns, _of_deployment if place == ("policy",) else _of_layer)


def _print_published(made: dict[str, Any], place: tuple[str, ...]) -> None:
    follow = "at the user's next send" if "users" in place else "within seconds"
    print(f"Version {made['version']} is in force; instances follow {follow}.")


def _place(options: argparse.Namespace) -> tuple[str, ...]:
    """The path of the layer that the options name.

    Raises SettingsError for a user of no tenant.
    """
    if options.user is not None and options.tenant is None:
        raise SettingsError("--user needs --tenant.")
    user = () if options.user is None else ("users", options.user)
    return ("policy",) if options.tenant is None else ("tenants", options.tenant, *user, "policy")


def _of_deployment(version: dict[str, Any]) -> tuple[object, ...]:
    document = version["document"]
    off = [name for name, is_off in document.get("kill_switches", {}).items() if is_off]
    return len(document["model_catalog"]), ", ".join(off) or "-"


def _of_layer(version: dict[str, Any]) -> tuple[object, ...]:
    said = sorted(version["document"].keys() - {"policy_version"})
    return ("withdrawn" if version["withdrawn"] else ", ".join(said) or "nothing",)


def _said(value: object) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)
