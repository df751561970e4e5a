"""What linters of others say of the OpenAPI documents: nothing."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".tools" / "outsiders" / "node_modules"
DOCUMENTS = [ROOT / "docs" / name for name in ("openapi.json", "openapi-admin.json")]

pytestmark = pytest.mark.skipif(not MODULES.is_dir(), reason="the linters are not installed (`make tools` says why)")


def test_redocly_finds_no_error_and_no_warning() -> None:
    said = _said("@redocly/cli/bin/cli.js", "lint", *DOCUMENTS, "--format=json")
    # Warnings and what is ignored are problems, too; each document has a list of its own.
    assert said.count('"problems": []') == len(DOCUMENTS), said


def test_spectral_finds_no_error_and_no_warning() -> None:
    rules = ROOT / "tests" / "outsiders" / "spectral.yaml"
    said = _said("@stoplight/spectral-cli/dist/index.js", "lint", *DOCUMENTS, "--ruleset", rules, "--format=json", "-q")
    assert json.loads(said) == []


def _said(script: str, *arguments: str | Path) -> str:
    environment = os.environ | {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    done = subprocess.run(
        ["node", MODULES / script, *arguments],
        cwd=MODULES.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.strip(), done.stderr
    return done.stdout
