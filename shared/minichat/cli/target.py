"""Which deployment an operator's command is for."""

import argparse
from pathlib import Path
from typing import Any

from minichat.domain.identity import TenantId, UserId
from minichat.domain.names import said
from minichat.local import stack
from minichat.settings import Settings, current
from minichat.storage.items import connect


def add_to(parser: Any) -> None:
    """Adds the options that name a deployment; the default is the one that the environment's settings describe."""
    parser.add_argument("--local", action="store_true", help="the local stack that runs on this machine")
    parser.add_argument("--state", type=Path, help="the local stack that runs with this state folder")


def a_tenant(text: str) -> TenantId:
    """A tenant that an option names, as its tokens do.

    Raises ArgumentTypeError for what no tenant can be called.
    """
    try:
        return TenantId(said(text))
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def a_user(text: str) -> UserId:
    """A user that an option names, as their tokens do.

    Raises ArgumentTypeError for what no user can be called.
    """
    return UserId(a_tenant(text))


def connected(options: argparse.Namespace) -> Settings:
    """The settings of the deployment, with the storage layer connected to its tables.

    Raises SettingsError when it cannot be found.
    """
    if options.local or options.state is not None:
        return stack.attached(options.state)
    connect(current().store)
    return current()
