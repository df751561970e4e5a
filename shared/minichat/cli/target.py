"""Which deployment an operator's command is for, and the way to its operator's API.

Most commands work through that API: with a token, wherever it is; at a local stack, with one that the stack's own
issuer signs; and without either, in this process, which then needs what AWS and the settings give to the functions.
"""

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minichat.domain.identity import TenantId, UserId
from minichat.domain.names import said
from minichat.settings import Settings, SettingsError, current, load, operators_api
from minichat_client import MiniChat

# Who talks to a deployment has nothing of AWS, of storage or of the local stack: functions import these when they need
# them.
# ruff: noqa: PLC0415

_TOKEN = re.compile(r"[\x21-\x7e]+")


def add_to(parser: Any) -> None:
    """Adds the options that name a deployment; the default is the one that the environment's settings describe."""
    parser.add_argument("--local", action="store_true", help="the local stack that runs on this machine")
    parser.add_argument("--state", type=Path, help="the local stack that runs with this state folder")
    parser.add_argument("--stack", help="the deployment on AWS with this stack, whose outputs say all that is needed")
    parser.add_argument("--region", help="of --stack; default: that of your AWS configuration")
    parser.add_argument("--profile", help="of your AWS configuration, for --stack")


def add_api_to(parser: Any) -> None:
    """Adds the options that name a deployment's operator's API, besides those of `add_to`."""
    add_to(parser)
    parser.add_argument(
        "--api",
        type=a_url,
        metavar="URL",
        help="the operator's API, such as https://api.example.org/mini-chat/admin/v1 (default: MINICHAT_ADMIN_API)",
    )
    add_token_to(parser, "MINICHAT_ADMIN_TOKEN")


def add_token_to(parser: Any, variable: str | None = None) -> None:
    """Adds the options that give a token; the default may be a variable's."""
    default = "" if variable is None else f" (default: {variable})"
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--token", help=f"a bearer token; others can see it in the list of processes{default}")
    tokens.add_argument("--token-file", type=Path, help="a file that holds the token")


def a_url(text: str) -> str:
    """An address that an option names.

    Raises ArgumentTypeError for what is none.
    """
    if urlsplit(text).scheme not in {"http", "https"} or not urlsplit(text).hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL such as https://api.example.org/mini-chat/v1")
    return text


def token_of(options: argparse.Namespace, default: str | None) -> str | None:
    """The token that the options give, or the default.

    Raises SettingsError for what is no token; OSError when its file cannot be read.
    """
    token = options.token or default
    if options.token_file is not None:
        token = options.token_file.read_text(encoding="utf-8", errors="replace").strip()
    if token is not None and not _TOKEN.fullmatch(token):
        raise SettingsError("The token is empty, or has characters that no token has.")
    return token


def names_one(options: argparse.Namespace) -> bool:
    """Whether the options, or the environment, name an operator's API or a stack."""
    return is_local(options) or bool(options.api or options.stack or operators_api()[0])


@contextmanager
def operating(options: argparse.Namespace) -> Iterator[MiniChat]:
    """The operator's API of the deployment, for one of its operators.

    At a local stack, a tenant or user is renamed as by `connected`: read the options inside.
    Raises SettingsError when it cannot be found.
    """
    url, token = (None, None) if options.stack is not None else operators_api()
    if is_local(options):
        from minichat.local import stack

        about = stack.told(options.state)
        connected(options)
        url = options.api or about["base_url"].removesuffix("/v1") + "/admin/v1"
        token = token_of(options, _of_local_operator(options.state, about["environment"]))
    elif (url := options.api or url) is not None:
        token = token_of(options, token)
    if url is not None:
        with MiniChat(url, token) as api:
            yield api
        return
    from minichat.cli.own_process import in_this_process

    attach(options)
    with in_this_process(current(), getattr(options, "by", None)) as api:
        yield api


def _of_local_operator(state: Path | None, environment: dict[str, str]) -> str:
    from minichat.local import stack
    from minichat.local.issuer import Issuer

    return Issuer(stack.folder(state)).token(
        "operators",
        "operator",
        now=datetime.now(UTC),
        lifetime=timedelta(hours=1),
        auth=load(environment).auth,
        roles=["operator"],
    )


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


def state_folder(options: argparse.Namespace) -> Path:
    """The state folder of the local stack that the options name.

    Raises NotACheckout.
    """
    from minichat.local import stack

    return stack.folder(options.state)


def attach(options: argparse.Namespace) -> dict[str, Any]:
    """Points this process's environment to the deployment; returns what the local stack, or the stack on AWS, says of
    itself: nothing when the environment was to describe it.

    Raises SettingsError when it cannot be found.
    """
    about: dict[str, Any] = {}
    if is_local(options):
        from minichat.local import stack

        stack.attach(options.state)
        about = stack.told(options.state)
    elif options.stack is not None:
        from minichat.local import deployed

        about = {"base_url": deployed.attach(options.stack, options.region, options.profile)[deployed.API_URL]}
    current.cache_clear()
    return about


def connected(options: argparse.Namespace) -> Settings:
    """The settings of the deployment, with the storage layer connected to its tables.

    At a local stack, a tenant or user that is named by what `minichat token` was told becomes the UUID in its tokens.
    Raises SettingsError when the deployment cannot be found; ServiceUnavailable.
    """
    from minichat.storage.items import connect

    attach(options)
    connect(current().store)
    if is_local(options):
        _name_as_tokens_do(options)
    return current()


def _name_as_tokens_do(options: argparse.Namespace) -> None:
    from minichat.local.issuer import as_uuid
    from minichat.storage import scan

    tenant: TenantId | None = getattr(options, "tenant", None)
    # Tokens of another making may have any name; tables of this machine are small enough to look.
    if tenant is None or any(scan.is_of(item, tenant) for item in scan.items()):
        return
    options.tenant = TenantId(as_uuid(tenant))
    if getattr(options, "user", None) is not None:
        options.user = UserId(as_uuid(options.user))
