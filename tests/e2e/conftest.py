"""Client libraries of others, installed once for all tests that run them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

CLIENTS = ROOT / "tests" / "clients"


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the locked client libraries are installed."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    folder = tmp_path_factory.mktemp("clients")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CLIENTS / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if installed.returncode:
        pytest.skip(f"the client libraries cannot be installed: {installed.stderr.strip()[-300:]}")
    return folder
