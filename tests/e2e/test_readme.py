"""The README's conversation, run again as it stands there: the same answers but for ids, times and tokens."""

import re
import subprocess
from pathlib import Path

from tests.conftest import ROOT
from tests.support.http.client import Stack

_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
_CHANGING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z"), "<time>"),
    (re.compile(r'"trace_id":"[0-9a-f]+"'), '"trace_id":"<trace>"'),
)


def _steady(text: str) -> str:
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    return text.strip()


def test_the_readmes_conversation_is_what_really_happens(stack: Stack, tmp_path: Path) -> None:
    block = _BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert block is not None
    told = block[1]
    commands = [line.removeprefix("$ ") for line in told.splitlines() if line.startswith("$ ")]
    script = "\n".join(f"echo {_quoted('$ ' + command)}\n{command}" for command in commands)
    # The README's stack is the default one; this one has a port and a state folder of its own.
    script = script.replace("API=http://127.0.0.1:8080/mini-chat/v1\n", f"API={stack.base_url}\n").replace(
        ".venv/bin/minichat token", f"minichat token --state {stack.state}"
    )
    script = f'minichat() {{ {ROOT}/.venv/bin/minichat "$@"; }}\n{script}'
    run = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    said = "\n".join(line for line in told.splitlines() if not line.startswith("# "))
    assert _lines(run.stdout) == _lines(said)


def _lines(text: str) -> list[str]:
    lines = [_steady(line) for line in text.splitlines()]
    # The commands that were adapted to this stack are the same but for that.
    return [line for line in lines if line and "minichat token" not in line and not line.startswith("$ API=")]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
