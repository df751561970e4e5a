"""What several tests have: client libraries of others, and somebody at a browser."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.conftest import ROOT
from tests.support.http.client import Stack, User

if TYPE_CHECKING:
    from tests.support.http.browser import Desk

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; skips where one of them is not here."""
    from tests.support.http.browser import chromium  # noqa: PLC0415  skips whoever imports it without Playwright

    with chromium() as one:
        yield one


@pytest.fixture
def desk(browser: Any, stack: Stack) -> "Iterator[Desk]":
    """Somebody at the browser, in front of the console."""
    from tests.support.http.browser import Desk  # noqa: PLC0415  as above

    one = Desk(browser, stack.base_url)
    yield one
    one.close()


@pytest.fixture
def name() -> str:
    """Somebody whom no other test is."""
    return f"user-{uuid4().hex[:8]}"


@pytest.fixture
def person(stack: Stack, name: str) -> Iterator[User]:
    """The same somebody, by the API."""
    with stack.user("acme", name) as one:
        yield one
