"""`minichat`: the product's command line."""

import argparse
import sys
from collections.abc import Sequence

from minichat import __version__
from minichat.cli import (
    chat,
    cleanup,
    deploy,
    dev,
    dlq,
    doctor,
    erase,
    events,
    export,
    outbox,
    policy,
    providers,
    reconcile,
    token,
    turns,
    usage,
)
from minichat.cli.api import ApiRefused, Unreachable
from minichat.domain.errors import ServiceUnavailable
from minichat.local.engine import EngineMissing
from minichat.local.folder_lock import FolderTaken
from minichat.local.process import ChildFailed
from minichat.local.tables import NotACheckout
from minichat.settings import SettingsError

_COMMANDS = (
    dev,
    token,
    chat,
    deploy,
    doctor,
    policy,
    providers,
    turns,
    usage,
    reconcile,
    events,
    outbox,
    dlq,
    cleanup,
    erase,
    export,
)
_CLOSER = "`minichat doctor` looks closer; --local means the stack that runs on this machine."
_SILENT = f"minichat: the tables do not answer. {_CLOSER}"
_ADVICE = {
    401: "Give a valid token with --token-file, or in MINICHAT_ADMIN_TOKEN: `minichat token check` looks closer.",
    403: "The token needs the role operator, or of a tenant's administrators tenant_admin: docs/authorization.md.",
    503: _CLOSER,
}


def parser() -> argparse.ArgumentParser:
    """The parser of every command, from which the reference is made too."""
    made = argparse.ArgumentParser(prog="minichat", description="Mini Chat: the backend of a multi-tenant AI chat.")
    made.add_argument("--version", action="version", version=f"minichat {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 when it did what it says, 2 with one explanation on stderr when it could not."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ServiceUnavailable:
        print(_SILENT, file=sys.stderr)
        return 2
    except ApiRefused as refused:
        print(f"minichat: {refused} {_ADVICE.get(refused.status, '')}".rstrip(), file=sys.stderr)
        return 2
    except Unreachable as silent:
        print(f"minichat: {silent} Is --api (or MINICHAT_ADMIN_API) right, and does it run?", file=sys.stderr)
        return 2
    except (SettingsError, EngineMissing, FolderTaken, ChildFailed, NotACheckout, OSError) as error:
        print(f"minichat: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
