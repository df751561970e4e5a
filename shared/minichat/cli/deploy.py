"""`minichat deploy`: what comes before `make deploy`."""

import argparse
from pathlib import Path
from typing import Any

from minichat.cli import deploy_account, deploy_parameters, deploy_plan
from minichat.cli.findings import in_time, tell
from minichat.cli.output import show_anything
from minichat.local.tables import project_root


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("deploy", help="before a deployment to AWS", description=__doc__)
    check = parser.add_subparsers(required=True, metavar="ACTION").add_parser(
        "check",
        help="find what would fail",
        description="Finds what would make a deployment fail, or be of no use: parameters, the issuer of tokens, the "
        "account with its quotas and secrets, the region, the stack. It changes nothing. The exit code is 0 when "
        "nothing failed, warnings or not.",
    )
    check.add_argument("--config", type=Path, help="of SAM (default: samconfig.toml of the checkout)")
    check.add_argument("--env", default="dev", help="an environment of that file (default dev)")
    check.add_argument(
        "--parameter-overrides", nargs="+", default=[], metavar="NAME=VALUE", help="in place of those of the file"
    )
    check.add_argument("--region", help="in place of the file's")
    check.add_argument("--profile", help="of your AWS configuration, in place of the file's")
    check.add_argument("--json", action="store_true", help="print JSON instead of lines")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    """0 when nothing failed, 1 otherwise."""
    show_anything()
    root = project_root()
    plan = deploy_plan.read(root, options.config or root / "samconfig.toml", options.env, options.parameter_overrides)
    checks = {**dict(deploy_parameters.of(plan)), **dict(deploy_account.of(plan, options.region, options.profile))}
    return tell(in_time(checks), as_json=options.json)
