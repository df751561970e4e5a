"""`minichat token`: a token that the local stack accepts; `check` says whether a deployment accepts one."""

import argparse
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from minichat import settings
from minichat.cli import token_check
from minichat.local import stack
from minichat.local.issuer import Issuer, as_uuid
from minichat.local.stack import StackOptions
from minichat.local.tables import project_root

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("token", help="mint a token for the local stack, or check one", description=__doc__)
    parser.add_argument("--tenant", help="a UUID, or a name that stands for one")
    parser.add_argument("--user", help="a UUID, or a name that stands for one")
    parser.add_argument(
        "--lifetime", type=_lifetime, default=timedelta(hours=12), help="such as 30m, 12h (default), 7d"
    )
    parser.add_argument("--role", action="append", default=[], help="of the caller, such as tenant_admin; repeatable")
    parser.add_argument("--state", type=Path, help="the folder that `minichat dev --state` keeps its keys in")
    parser.add_argument("--config", type=Path, help="the settings that `minichat dev --config` was given")
    parser.add_argument("--ids", action="store_true", help="print the tenant's and the user's UUID instead")
    parser.set_defaults(run=run, complain=parser.error)
    token_check.add_to(parser.add_subparsers(metavar="COMMAND"))


def run(options: argparse.Namespace) -> int:
    """Prints the token, and nothing else."""
    if options.tenant is None or options.user is None:
        options.complain("--tenant and --user are required")
    if options.ids:
        print(as_uuid(options.tenant), as_uuid(options.user))
        return 0
    auth = settings.load(stack.environment(StackOptions(config=options.config))).auth
    issuer = Issuer((options.state or project_root() / ".minichat").resolve())
    said = {"now": datetime.now(UTC), "lifetime": options.lifetime, "auth": auth, "roles": options.role}
    print(issuer.token(options.tenant, options.user, **said))
    return 0


def _lifetime(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError("a number and one of s, m, h, d, such as 12h")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
