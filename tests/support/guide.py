"""The commands of a page, run or checked as they stand there.

A block of `sh` holds commands, one of `console` commands after `$ ` and what they print. One whose first line is
`# With an AWS account:` or `# With Docker:` is not run: `minichat` and `make` are asked whether they understand it.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from minichat.cli.main import parser
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
NOT_RUN = ("# With an AWS account:\n", "# With Docker:\n")
DEFAULT_ADDRESS = "http://127.0.0.1:8080"
_BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ELSEWHERE = re.compile(r"^(aws|docker|\S*sam|make deploy)\s", re.MULTILINE)
# The default stack is the one of the tests, whatever its port and state folder are; others are started as told.
_PRELUDE = r"""
set -euo pipefail
started=0 running=
stop() { [ -z "$running" ] || kill $running; running=; }
trap "stop; wait" EXIT
make() {
  if [ "$1" != run ]; then command make --dry-run --directory "$ROOT" "$@" >/dev/null; return; fi
  stop
  if [ "$*" = run ] && [ -z "${OPENAI_API_KEY:-}" ]; then export STATE="$DEFAULT_STATE"; return; fi
  export STATE="$PWD/state-$((++started))"
  arguments=${2:-ARGS=}
  eval "set -- ${arguments#ARGS=}"
  "$PYTHON" -m minichat.cli.main dev --port 0 --state "$STATE" "$@" >"log-$started" 2>&1 &
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
_PYTHON = '#!/usr/bin/env bash\nexec "$PYTHON" "$@"\n'


class Block(NamedTuple):
    """Commands of a page, in one shell, and what they print if the page says it."""

    commands: str
    printed: str | None
    is_run: bool


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page with commands, in order."""
    for language, text in _BLOCK.findall(page):
        is_run = not text.startswith(NOT_RUN)
        if language == "sh":
            yield Block(text, None, is_run)
        else:
            commands = "".join(f"{line[2:]}\n" for line in text.splitlines() if line.startswith("$ "))
            yield Block(commands, text, is_run)


def run(page: str, stack: Stack, folder: Path, stand_ins: Mapping[str, str]) -> str:
    """What the page's commands print, each one of `console` after itself as a terminal shows it.

    They run in one shell, in `folder`; `stand_ins` has what stands for addresses of the page. A command that fails
    is an AssertionError, and so is one that needs AWS or Docker and does not say so.
    """
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name, text in {"minichat": _MINICHAT, "python": _PYTHON}.items():
        command = folder / ".venv" / "bin" / name
        command.write_text(text)
        command.chmod(0o755)
    (folder / "examples").symlink_to(ROOT / "examples")
    script = "".join(_told(block) for block in blocks(page) if block.is_run)
    assert not _ELSEWHERE.search(script), f"a block with this needs as its first line one of {NOT_RUN}"
    for address, other in {DEFAULT_ADDRESS: stack.base_url.removesuffix("/mini-chat/v1"), **stand_ins}.items():
        script = script.replace(address, other)
    said = {
        "ROOT": str(ROOT),
        "PYTHON": sys.executable,
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
    return True


def _is_minichats(arguments: list[str]) -> bool:
    try:
        parser().parse_args(arguments)
    except SystemExit:
        return False
    return True
