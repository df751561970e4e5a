"""Which deployment an operator's command is for."""

import argparse
from pathlib import Path
from typing import Any

from minichat.domain.identity import TenantId, UserId
from minichat.domain.names import said
from minichat.local import deployed, stack
from minichat.local.issuer import as_uuid
from minichat.settings import Settings, SettingsError, current
from minichat.storage import scan
from minichat.storage.items import connect


def add_to(parser: Any) -> None:
    """Adds the options that name a deployment; the default is the one that the environment's settings describe."""
    parser.add_argument("--local", action="store_true", help="the local stack that runs on this machine")
    parser.add_argument("--state", type=Path, help="the local stack that runs with this state folder")
    parser.add_argument("--stack", help="the deployment on AWS with this stack, whose outputs say all that is needed")
    parser.add_argument("--region", help="of --stack; default: that of your AWS configuration")
    parser.add_argument("--profile", help="of your AWS configuration, for --stack")


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


def is_local(options: argparse.Namespace) -> bool:
    """Whether the command is for a local stack.

    Raises SettingsError when the options contradict each other.
    """
    local = options.local or options.state is not None
    if local and options.stack is not None:
        raise SettingsError("--stack is on AWS, --local and --state are here: choose one.")
    if options.stack is None and (options.region or options.profile):
        raise SettingsError("--region and --profile say where --stack is: name one.")
    return bool(local)


def attach(options: argparse.Namespace) -> dict[str, Any]:
    """Points this process's environment to the deployment; returns what the local stack, or the stack on AWS, says of
    itself: nothing when the environment was to describe it.

    Raises SettingsError when it cannot be found.
    """
    about: dict[str, Any] = {}
    if is_local(options):
        stack.attach(options.state)
        about = stack.told(options.state)
    elif options.stack is not None:
        about = {"base_url": deployed.attach(options.stack, options.region, options.profile)[deployed.API_URL]}
    current.cache_clear()
    return about


def connected(options: argparse.Namespace) -> Settings:
    """The settings of the deployment, with the storage layer connected to its tables.

    At a local stack, a tenant or user that is named by what `minichat token` was told becomes the UUID in its tokens.
    Raises SettingsError when the deployment cannot be found; ServiceUnavailable.
    """
    attach(options)
    connect(current().store)
    if is_local(options):
        _name_as_tokens_do(options)
    return current()


def _name_as_tokens_do(options: argparse.Namespace) -> None:
    tenant: TenantId | None = getattr(options, "tenant", None)
    # Tokens of another making may have any name; tables of this machine are small enough to look.
    if tenant is None or any(scan.is_of(item, tenant) for item in scan.items()):
        return
    options.tenant = TenantId(as_uuid(tenant))
    if getattr(options, "user", None) is not None:
        options.user = UserId(as_uuid(options.user))
