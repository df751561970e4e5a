"""Which deployment an operator's command is for."""

import argparse
from pathlib import Path
from typing import Any

from minichat.domain.identity import TenantId, UserId
from minichat.domain.names import said
from minichat.local import stack
from minichat.local.issuer import as_uuid
from minichat.settings import Settings, current
from minichat.storage import scan
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


def connected(options: argparse.Namespace) -> Settings:
    """The settings of the deployment, with the storage layer connected to its tables.

    At a local stack, a tenant or user that is named by what `minichat token` was told becomes the UUID in its tokens.
    Raises SettingsError when the deployment cannot be found; ServiceUnavailable.
    """
    if options.local or options.state is not None:
        settings = stack.attached(options.state)
        _name_as_tokens_do(options)
        return settings
    connect(current().store)
    return current()


def _name_as_tokens_do(options: argparse.Namespace) -> None:
    tenant: TenantId | None = getattr(options, "tenant", None)
    # Tokens of another making may have any name; tables of this machine are small enough to look.
    if tenant is None or any(scan.is_of(item, tenant) for item in scan.items()):
        return
    options.tenant = TenantId(as_uuid(tenant))
    if getattr(options, "user", None) is not None:
        options.user = UserId(as_uuid(options.user))
