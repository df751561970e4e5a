"""`minichat policy`: models, prices, limits and kill switches, as versions that never change."""

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.moment import new_id, now
from minichat.services.policy_in_force import policy_file
from minichat.settings import current
from minichat.storage import policies


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("policy", help="models, prices, limits, kill switches", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    validate = actions.add_parser("validate", help="check a policy file without publishing it")
    validate.add_argument("file", type=Path, help="JSON or YAML")
    target.add_to(validate)
    validate.set_defaults(run=_validate)

    publish = actions.add_parser("publish", help="put a policy in force; instances follow within seconds")
    publish.add_argument("file", type=Path, help="JSON or YAML")
    publish.add_argument("--by", default=None, help="who publishes (default: the login name)")
    target.add_to(publish)
    publish.set_defaults(run=_publish)

    show = actions.add_parser("show", help="print a version as JSON")
    show.add_argument("version", type=int, nargs="?", help="default: the one in force")
    target.add_to(show)
    show.set_defaults(run=_show)

    history = actions.add_parser("history", help="list the versions, the newest first")
    target.add_to(history)
    history.set_defaults(run=_history)


def _validate(options: argparse.Namespace) -> int:
    local = options.local or options.state is not None
    policy = policy_file(options.file, target.connected(options) if local else current())
    print(f"{options.file}: version {policy.policy_version}, {len(policy.model_catalog)} models, valid")
    return 0


def _publish(options: argparse.Namespace) -> int:
    settings = target.connected(options)
    policy = policy_file(options.file, settings)
    moment = now()
    try:
        policies.publish(policy, at=moment, by=options.by or getpass.getuser(), token=new_id(moment))
    except policies.VersionTaken as taken:
        print(
            f"minichat: policy_version: {policy.policy_version} cannot follow version {taken.current}, which stays in "
            "force: versions only go up, and none ever changes.",
            file=sys.stderr,
        )
        return 2
    except policies.PolicyTooLarge as error:
        print(f"minichat: {options.file}: {error}", file=sys.stderr)
        return 2
    print(f"Version {policy.policy_version} is in force; instances follow in {settings.policy_refresh_seconds:g} s.")
    return 0


def _show(options: argparse.Namespace) -> int:
    target.connected(options)
    version = options.version if options.version is not None else policies.current_version()
    published = None if version is None else policies.read(version, policies.DEPLOYMENT)
    if published is None:
        what = "No policy was published yet" if version is None else f"There is no version {version}"
        print(f"minichat: {what}.", file=sys.stderr)
        return 2
    print(published.policy.model_dump_json(indent=2))
    return 0


def _history(options: argparse.Namespace) -> int:
    target.connected(options)
    in_force = policies.current_version()
    rows = [
        (
            f"{one.policy.policy_version}{' *' if one.policy.policy_version == in_force else ''}",
            f"{one.at:%Y-%m-%d %H:%M:%S}Z",
            one.by,
            len(one.policy.model_catalog),
            ", ".join(name for name, on in one.policy.kill_switches if on) or "-",
        )
        for one in policies.history(policies.DEPLOYMENT)
    ]
    print(table(("version", "published", "by", "models", "switched off"), rows))
    return 0
