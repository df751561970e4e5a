"""`minichat doctor`: whether a deployment has what it needs, and what to do where it has not."""

import argparse
import logging
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from minichat import settings
from minichat.cli import checks, target
from minichat.cli.findings import Finding, in_time, tell
from minichat.cli.output import show_anything
from minichat.domain.errors import ServiceUnavailable
from minichat.events import sqs
from minichat.local import stack
from minichat.local.provider_words import ProviderWords
from minichat.local.tables import NotACheckout
from minichat.observability import logger
from minichat.services.provider_config import in_force
from minichat.settings import SettingsError
from minichat.storage.items import connect


def add_to(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="check a deployment",
        description="Checks a deployment: settings, secrets, tables, queues, keys, policy, and what it connects to. "
        "It changes nothing. The exit code is 0 when nothing failed, warnings or not.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    target.add_to(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when nothing failed, 1 otherwise."""
    show_anything()
    logger.setLevel(logging.CRITICAL)  # what fails is a finding here
    return tell(_examined(options), as_json=options.json)


def _examined(options: argparse.Namespace) -> dict[str, Finding]:
    try:
        about = target.attach(options)
    except (SettingsError, NotACheckout) as error:
        if options.stack is not None:
            return {"stack": Finding("failed", f"{options.stack} cannot be examined", str(error))}
        return {"local stack": Finding("failed", "none has run here", str(error))}
    configured, problems = settings.examine()
    connect(configured.store)
    sqs.connect(configured)
    with suppress(ServiceUnavailable):  # the check of the table says so
        configured = in_force(configured)
    local = target.is_local(options)
    wanted = dict(checks.of(configured, problems, about.get("base_url"), local=local))
    if local:
        wanted["answers of providers"] = partial(_last_failure, stack.folder(options.state))
    return in_time(wanted)


def _last_failure(state: Path) -> Finding:
    """What a provider said when it last failed, from the log of this machine's server."""
    *_, last = [None, *ProviderWords(state, since_start=True).new()]
    if last is None:
        return Finding("ok", "none has failed since the start")
    return Finding("warning", f"one failed since the start, the last time with {last}", "See logs/server.log")
