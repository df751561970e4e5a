"""The commands of a page, run or checked as they stand there.

A block of `sh` holds commands, one of `console` commands after `$ ` and what they print. One whose first line is
`# With an AWS account:` is not run: the program of each of its commands is asked whether it understands it.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import botocore.session
from botocore import xform_name

from minichat.cli.main import parser
from minichat.local.process import free_port
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
NEEDS_AWS = "# With an AWS account:\n"
DEFAULT_ADDRESS = "http://127.0.0.1:8080"
_BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_AWS = re.compile(r"\b(aws|sam|make deploy)\s")
_OF_EVERY_AWS_COMMAND = {"--output", "--profile", "--query", "--region"}
# The default stack is the one of the tests, whatever its port and state folder are; others are started as told.
_PRELUDE = r"""
set -euo pipefail
started=0 running=
stop() { [ -z "$running" ] || { kill $running; wait $running || true; running=; }; }
trap stop EXIT
make() {
  if [ "$1" != run ]; then command make --dry-run --directory "$ROOT" "$@" >/dev/null; return; fi
  stop
  if [ "$*" = run ] && [ -z "${OPENAI_API_KEY:-}" ]; then export STATE="$DEFAULT_STATE"; return; fi
  export STATE="$PWD/state-$((++started))"
  arguments=${2:-ARGS=}
  eval "set -- ${arguments#ARGS=}"
  "$PYTHON" -m minichat.cli.main dev --port "$PORT" --state "$STATE" "$@" >"log-$started" 2>&1 &
  running=$!
  until grep -q "^Ctrl-C" "log-$started"; do
    kill -0 $running || { cat "log-$started" >&2; return 1; }
    sleep 0.1
  done
}
"""
_MINICHAT = r"""#!/usr/bin/env bash
arguments=()
for one in "$@"; do
  if [ "$one" = --local ]; then arguments+=(--state "$STATE"); else arguments+=("$one"); fi
done
case "$1 ${2:-}" in
  "token --"* | "events tail") arguments+=(--state "$STATE") ;;
esac
exec "$PYTHON" -m minichat.cli.main "${arguments[@]}"
"""


class Block(NamedTuple):
    """Commands of a page, in one shell, and what they print if the page says it."""

    commands: str
    printed: str | None
    needs_aws: bool


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page with commands, in order."""
    for language, text in _BLOCK.findall(page):
        needs_aws = text.startswith(NEEDS_AWS)
        if language == "sh":
            yield Block(text, None, needs_aws)
        else:
            commands = "".join(f"{line[2:]}\n" for line in text.splitlines() if line.startswith("$ "))
            yield Block(commands, text, needs_aws)


def run(page: str, stack: Stack, folder: Path, stand_ins: Mapping[str, str]) -> str:
    """What the page's commands print, each one of `console` after itself as a terminal shows it.

    They run in one shell, in `folder`; `stand_ins` has what stands for addresses of the page. A command that fails
    is an AssertionError, and so is one that needs AWS and does not say so.
    """
    (folder / ".venv" / "bin").mkdir(parents=True)
    command = folder / ".venv" / "bin" / "minichat"
    command.write_text(_MINICHAT)
    command.chmod(0o755)
    (folder / "examples").symlink_to(ROOT / "examples")
    script = "".join(_told(block) for block in blocks(page) if not block.needs_aws)
    assert not _AWS.search(script), f"a block with this needs the first line {NEEDS_AWS!r}"
    for address, other in {DEFAULT_ADDRESS: stack.base_url.removesuffix("/mini-chat/v1"), **stand_ins}.items():
        script = script.replace(address, other)
    said = {
        "ROOT": str(ROOT),
        "PYTHON": sys.executable,
        "PORT": str(free_port()),
        "STATE": str(stack.state),
        "DEFAULT_STATE": str(stack.state),
    }
    done = subprocess.run(
        ["bash", "-c", _PRELUDE + script],
        cwd=folder,
        env={**os.environ, **said, "OPENAI_API_KEY": ""},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def not_understood(block: Block) -> list[str]:
    """The commands of a block that the program they are for would refuse."""
    subprocess.run(["bash", "-n", "-c", block.commands], check=True, timeout=PATIENCE)
    lines = block.commands.replace("\\\n", " ").splitlines()
    return [line for line in lines if not _understands(shlex.split(line, comments=True))]


def _told(block: Block) -> str:
    if block.printed is None:
        return block.commands
    return "".join(f"echo {shlex.quote(f'$ {line}')}\n{line}\n" for line in block.commands.splitlines())


def _understands(words: list[str]) -> bool:
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    match words:
        case [".venv/bin/minichat", *arguments]:
            return _is_minichats(arguments)
        case ["make", *_]:
            return subprocess.run([words[0], "--dry-run", *words[1:]], cwd=ROOT, capture_output=True).returncode == 0  # noqa: PLW1510
        case ["aws", service, operation, *arguments]:
            return _is_awss(service, operation, {word for word in arguments if word.startswith("--")})
    return True


def _is_minichats(arguments: list[str]) -> bool:
    try:
        parser().parse_args(arguments)
    except SystemExit:
        return False
    return True


def _is_awss(service: str, operation: str, options: set[str]) -> bool:
    session = botocore.session.get_session()
    if service not in session.get_available_services():
        return False
    model = session.get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    if operation not in names:
        return False
    shape = model.operation_model(names[operation]).input_shape
    members = {f"--{xform_name(name, '-')}" for name in (shape.members if shape else ())}
    return options <= members | _OF_EVERY_AWS_COMMAND
