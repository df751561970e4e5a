"""`minichat doctor`: whether a deployment has what it needs, and what to do where it has not."""

import argparse
import json
import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from minichat import settings
from minichat.cli import checks, target
from minichat.cli.checks import Check, Finding
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

PATIENCE_SECONDS = 15
"""For all checks together, which run in parallel: resolving a name has no timeout of its own."""


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
    found = _examined(options)
    count = Counter(finding.result for finding in found.values())
    if options.json:
        told = [
            {"check": name, "result": one.result, "detail": one.detail, "advice": one.advice or None}
            for name, one in found.items()
        ]
        print(
            json.dumps({"checks": told, **{result: count[result] for result in ("ok", "warning", "failed")}}, indent=2)
        )
    else:
        width = max(map(len, found))
        for name, one in found.items():
            print(f"{one.result:7}  {name:{width}}  {one.detail}" + (f". {one.advice}" if one.advice else ""))
        print(f"{count['ok']} ok, {count['warning']} warnings, {count['failed']} failed")
    return 1 if count["failed"] else 0


def _examined(options: argparse.Namespace) -> dict[str, Finding]:
    api = None
    if options.local or options.state is not None:
        try:
            stack.attach(options.state)
            api = str(stack.told(options.state)["base_url"])
        except (SettingsError, NotACheckout) as error:
            return {"local stack": Finding("failed", "none has run here", str(error))}
    configured, problems = settings.examine()
    connect(configured.store)
    sqs.connect(configured)
    with suppress(ServiceUnavailable):  # the check of the table says so
        configured = in_force(configured)
    wanted = dict(checks.of(configured, problems, api))
    if api is not None:
        wanted["answers of providers"] = partial(_last_failure, stack.folder(options.state))
    return _in_time(wanted)


def _last_failure(state: Path) -> Finding:
    """What a provider said when it last failed, from the log of this machine's server."""
    *_, last = [None, *ProviderWords(state, since_start=True).new()]
    if last is None:
        return Finding("ok", "none has failed since the start")
    return Finding("warning", f"one failed since the start, the last time with {last}", "See logs/server.log")


def _in_time(wanted: dict[str, Check]) -> dict[str, Finding]:
    """The findings, in the order of the checks; a check that takes too long is abandoned."""
    found: dict[str, Finding] = {}

    def look(name: str, check: Check) -> None:
        try:
            found[name] = check()
        except Exception as error:
            # Its text may hold anything, even a secret.
            found[name] = Finding("failed", f"the check broke: {type(error).__name__}", "Report it: it is our fault.")

    threads = [threading.Thread(target=look, args=one, daemon=True) for one in wanted.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = Finding("failed", f"no answer in {PATIENCE_SECONDS} s", "See that names resolve and routes are open.")
    return {name: found.get(name, late) for name in wanted}
