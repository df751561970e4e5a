"""`minichat providers`: the entries of providers, and what tenants override, as versions that never change.

Keys are named, never sent: their values are in Secrets Manager or Parameter Store.
"""

import argparse
from pathlib import Path
from typing import Any

from minichat.cli import target, versions
from minichat.settings import read_document


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("providers", help="providers, and what tenants override", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    publish = actions.add_parser("publish", help="put entries in force; instances follow within seconds")
    publish.add_argument("file", type=Path, help="JSON or YAML: {providers}, or a tenant's {overrides}")
    publish.add_argument(
        "--base",
        type=int,
        metavar="VERSION",
        help="refused if another is in force than this, which you changed (0: none)",
    )
    versions.add_by_to(publish)
    publish.set_defaults(run=_publish)

    show = actions.add_parser("show", help="print a version as JSON")
    show.add_argument("version", type=int, nargs="?", help="default: the one in force")
    show.set_defaults(run=_show)

    history = actions.add_parser("history", help="list the versions, the newest first")
    history.set_defaults(run=_history)

    for action in (publish, show, history):
        action.add_argument("--tenant", type=target.a_tenant, help="the overrides of a tenant, by its name")
        target.add_api_to(action)


def _publish(options: argparse.Namespace) -> int:
    base = {} if options.base is None else {"base": options.base}
    with target.operating(options) as api:
        made = api.call("POST", *_place(options), "versions", body=read_document("providers", options.file), **base)
    print(f"Version {made['version']} is in force; instances follow within seconds.")
    return 0


def _show(options: argparse.Namespace) -> int:
    return versions.show(options, _place(options), "entries")


def _history(options: argparse.Namespace) -> int:
    return versions.history(options, _place(options))


def _place(options: argparse.Namespace) -> tuple[str, ...]:
    return ("providers",) if options.tenant is None else ("tenants", options.tenant, "providers")
