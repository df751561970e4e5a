"""Which deployment an operator's command is for."""

import argparse
from pathlib import Path
from typing import Any
from uuid import UUID

from minichat.domain.identity import TenantId
from minichat.local import stack
from minichat.local.issuer import as_uuid
from minichat.settings import Settings, SettingsError, current
from minichat.storage.items import connect


def add_to(parser: Any) -> None:
    """Adds the options that name a deployment; the default is the one that the environment's settings describe."""
    parser.add_argument("--local", action="store_true", help="the local stack that runs on this machine")
    parser.add_argument("--state", type=Path, help="the local stack that runs with this state folder")


def connected(options: argparse.Namespace) -> Settings:
    """The settings of the deployment, with the storage layer connected to its tables.

    Raises SettingsError when it cannot be found.
    """
    if options.local or options.state is not None:
        return stack.attached(options.state)
    connect(current().store)
    return current()


def tenant(options: argparse.Namespace) -> TenantId:
    """The tenant that `--tenant` names; of a local stack also by the name that `minichat token` was given.

    Raises SettingsError for a name elsewhere: nothing would be found under it, as if all were well.
    """
    if options.local or options.state is not None:
        return TenantId(as_uuid(options.tenant))
    try:
        return TenantId(str(UUID(options.tenant)))
    except ValueError:
        raise SettingsError(
            f"--tenant: {options.tenant!r} is no UUID; names stand for one with --local or --state only."
        ) from None
