"""Clients that others' generators make of the OpenAPI document: they compile, and hold a conversation.

`make generators` installs the generators, and runs this.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

DOCUMENT = ROOT / "docs" / "openapi.json"
SCRIPTS = ROOT / "tests" / "outsiders"
MODULES = ROOT / ".tools" / "outsiders" / "node_modules"
PYTHON = ROOT / ".tools" / "generators" / "bin"
SAID = {
    "said": "Far away.",
    "resumed": "Far away.",
    "retried": "Far away.",
    "messages": ["[[say:Far away.]]", "Far away."],
    "gone": 204,
    "refused": "chat_not_found",
}
"""What every client tells of the conversation."""

pytestmark = pytest.mark.skipif("GENERATORS" not in os.environ, reason="takes a minute: `make generators`")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a TypeScript client is made, with the generators' modules in reach."""
    (tmp_path / "node_modules").symlink_to(MODULES)
    shutil.copy(SCRIPTS / "tsconfig.json", tmp_path)
    return tmp_path


def test_openapi_typescript_makes_types_that_a_strict_compiler_takes_and_a_conversation_fits(
    stack: Stack, folder: Path
) -> None:
    _run(folder, "node", MODULES / "openapi-typescript/bin/cli.js", DOCUMENT, "--output", "schema.d.ts")
    assert _spoken(stack, folder, "with_openapi_typescript") == SAID


def test_hey_api_makes_a_client_that_a_strict_compiler_takes_and_that_reads_streams(stack: Stack, folder: Path) -> None:
    options: list[str | Path] = ["--input", DOCUMENT, "--output", "hey", "--client", "@hey-api/client-fetch"]
    _run(folder, "node", MODULES / "@hey-api/openapi-ts/bin/run.js", *options)
    assert _spoken(stack, folder, "with_hey_api") == SAID


def test_openapi_python_client_makes_a_client_that_mypy_takes_and_no_stream_has_raise(
    stack: Stack, tmp_path: Path
) -> None:
    options: list[str | Path] = ["--path", DOCUMENT, "--output-path", "made", "--meta", "none", "--fail-on-warning"]
    _run(tmp_path, PYTHON / "openapi-python-client", "generate", *options)
    shutil.copy(SCRIPTS / "with_openapi_python_client.py", tmp_path)
    checked: list[str | Path] = [
        "--strict",
        "--follow-imports=silent",
        "--python-executable",
        PYTHON / "python",
        "with_openapi_python_client.py",
    ]
    _run(tmp_path, ROOT / ".venv" / "bin" / "mypy", *checked)
    command: list[str | Path] = [PYTHON / "python", "with_openapi_python_client.py"]
    assert json.loads(_run(tmp_path, *command, *_place(stack))) == SAID


def _spoken(stack: Stack, folder: Path, script: str) -> object:
    """What a script tells that talks through a generated client."""
    shutil.copy(SCRIPTS / f"{script}.ts", folder)
    _run(folder, "node", MODULES / "typescript/bin/tsc")
    return json.loads(_run(folder, "node", f"made/{script}.js", *_place(stack)))


def _place(stack: Stack) -> tuple[str, str]:
    """Where the stack is, and a token."""
    return stack.base_url.removesuffix("/mini-chat/v1"), stack.token("acme", "ann")


def _run(folder: Path, *command: str | Path) -> str:
    # What is linked in may find its own modules; generators look for the formatters of whoever runs them.
    environment = os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "NODE_OPTIONS": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE * 4, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
