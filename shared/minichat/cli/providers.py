"""`minichat providers`: the entries of providers, and what tenants override, as versions that never change."""

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from minichat.cli import target
from minichat.cli.output import table
from minichat.domain.errors import InvalidRequest
from minichat.moment import new_id, now
from minichat.services import provider_config
from minichat.settings import read_document
from minichat.storage import provider_versions


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("providers", help="providers, and what tenants override", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    publish = actions.add_parser("publish", help="put entries in force; instances follow within seconds")
    publish.add_argument("file", type=Path, help="JSON or YAML: {providers}, or a tenant's {overrides}")
    publish.add_argument("--by", default=None, help="who publishes (default: the login name)")
    publish.set_defaults(run=_publish)

    show = actions.add_parser("show", help="print a version as JSON")
    show.add_argument("version", type=int, nargs="?", help="default: the one in force")
    show.set_defaults(run=_show)

    history = actions.add_parser("history", help="list the versions, the newest first")
    history.set_defaults(run=_history)

    for action in (publish, show, history):
        action.add_argument("--tenant", type=target.a_tenant, help="the overrides of a tenant, by its name")
        target.add_to(action)


def _publish(options: argparse.Namespace) -> int:
    settings = target.connected(options)
    document, moment = read_document("providers", options.file), now()
    by = options.by or getpass.getuser()
    try:
        publication = provider_versions.Publication(by, moment, new_id(moment))
        version = provider_config.publish(document, options.tenant, settings, publication)
    except provider_versions.ProvidersMoved as moved:
        print(f"minichat: version {moved.current} was published meanwhile, and stays in force.", file=sys.stderr)
        return 2
    except InvalidRequest as error:
        for wrong in error.errors:
            print(f"minichat: {options.file}: {wrong.field}: {wrong.message}", file=sys.stderr)
        return 2
    print(f"Version {version} is in force; instances follow in {settings.policy_refresh_seconds:g} s.")
    return 0


def _show(options: argparse.Namespace) -> int:
    target.connected(options)
    published = provider_config.show(options.tenant, options.version)
    if published is None:
        asked = options.version
        what = "No entries were published yet" if asked is None else f"There is no version {asked}"
        print(f"minichat: {what}.", file=sys.stderr)
        return 2
    print(published.document.decode())
    return 0


def _history(options: argparse.Namespace) -> int:
    target.connected(options)
    in_force = provider_versions.current_providers(options.tenant)
    rows = [
        (f"{one.version}{' *' if one.version == in_force else ''}", f"{one.at:%Y-%m-%d %H:%M:%S}Z", one.by)
        for one in provider_versions.providers_history(options.tenant)
    ]
    print(table(("version", "published", "by"), rows))
    return 0
