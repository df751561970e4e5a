"""`minichat`: the product's command line."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from minichat import __version__
from minichat.domain.errors import ServiceUnavailable
from minichat.local.process import CannotStart
from minichat.settings import SettingsError
from minichat_client import Refused, Unreachable

_COMMANDS = (
    "dev",
    "token",
    "chat",
    "deploy",
    "doctor",
    "policy",
    "providers",
    "turns",
    "usage",
    "reconcile",
    "events",
    "outbox",
    "dlq",
    "cleanup",
    "erase",
    "export",
)
"""Each a module here, imported when it is named: what talks to a deployment needs nothing of what runs one."""
_WHOLE = "pip install 'minichat[functions,local]'"
_CLOSER = "`minichat doctor` looks closer; --local means the stack that runs on this machine."
_SILENT = f"minichat: the tables do not answer. {_CLOSER}"
_ADVICE = {
    401: "Give a valid token with --token-file, or in MINICHAT_ADMIN_TOKEN: `minichat token check` looks closer.",
    403: "The token needs the role operator, or of a tenant's administrators tenant_admin: docs/authorization.md.",
    503: _CLOSER,
}


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of every command, from which the reference is made too, or of one.

    Raises ModuleNotFoundError when that one needs more than is installed.
    """
    made = argparse.ArgumentParser(prog="minichat", description="Mini Chat: the backend of a multi-tenant AI chat.")
    made.add_argument("--version", action="version", version=f"minichat {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if only is not None:
        _module(only).add_to(commands)
        return made
    for name in _COMMANDS:
        try:
            _module(name).add_to(commands)
        except ModuleNotFoundError:
            commands.add_parser(name, help=f"(needs {_WHOLE})")
    return made


def _module(name: str) -> Any:
    return import_module(f"minichat.cli.{name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 when it did what it says, 2 with one explanation on stderr when it could not."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options = parser(given[0] if given and given[0] in _COMMANDS else None).parse_args(given)
        return int(options.run(options))
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("minichat"):
            raise
        print(f"minichat: this needs more than is installed here ({missing.name}): {_WHOLE}.", file=sys.stderr)
        return 2
    except ServiceUnavailable:
        print(_SILENT, file=sys.stderr)
        return 2
    except Refused as refused:
        print(f"minichat: {refused} {_ADVICE.get(refused.status, '')}".rstrip(), file=sys.stderr)
        return 2
    except Unreachable as silent:
        print(f"minichat: {silent} Is --api (or MINICHAT_ADMIN_API) right, and does it run?", file=sys.stderr)
        return 2
    except (SettingsError, CannotStart, OSError) as error:
        print(f"minichat: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
