"""The command installed for somebody who only talks to deployments: none of what runs one is there."""

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from importlib.metadata import PathDistribution, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

NOT_HERE = ("boto3", "pynamodb", "starlette", "fastapi", "jwt", "cryptography", "moto")
ONLY = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv.pop(1).split())
sys.meta_path.insert(0, NotInstalled())
from minichat.cli.main import main
sys.exit(main())
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


def needed(requirements: Iterator[str], extra: str) -> set[str]:
    """These distributions and all that they need in turn."""
    found: set[str] = set()
    for one in map(Requirement, requirements):
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            name = str(canonicalize_name(one.name))
            found |= {name, *needed(iter(distribution(name).requires or ()), "")}
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=PATIENCE)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module", params=["what is locked", "an index"])
def command(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`minichat` with the extra `cli` alone: from what is installed here, or as pip installs it elsewhere."""
    folder = tmp_path_factory.mktemp("alone")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MINICHAT_", "PYTHON"))}
    if request.param == "an index":
        if "COMMAND_ALONE" not in os.environ:
            pytest.skip("needs an index: make command-alone")
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet", f"{wheel}[cli]"]
        subprocess.run(pip, check=True, timeout=PATIENCE)
        start = [str(folder / "bin" / "minichat")]
    else:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True, timeout=PATIENCE)
        (about,) = folder.glob("minichat-*.dist-info")
        there = needed(iter(PathDistribution(about).requires or ()), "cli") | {"minichat"}
        owners = packages_distributions()
        absent = [name for name in owners if not there & {canonicalize_name(owner) for owner in owners[name]}]
        assert set(NOT_HERE) <= set(absent)
        start = [sys.executable, "-c", ONLY, " ".join(absent)]
        environment["PYTHONPATH"] = str(folder)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*start, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def test_it_holds_a_conversation(stack: Stack, command: Command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(stack.token("acme", "alone"))
    (tmp_path / "notes.txt").write_text("Notes")
    here = ["--url", stack.base_url, "--token-file", str(tmp_path / "token")]
    said = command("chat", *here, "--attach", str(tmp_path / "notes.txt"), "-m", "[[say:Paris it is.]]")
    assert (said.returncode, said.stdout) == (0, "Paris it is.\n"), said.stderr


def test_it_operates(stack: Stack, command: Command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(stack.token("operators", "olga", roles=["operator"]))
    api = ["--api", stack.operators_url, "--token-file", str(tmp_path / "token")]
    for arguments in (
        ["usage", "--tenant", "acme", "--from", "2026-11-01", "--to", "2026-11-02"],
        ["turns", "running"],
        ["dlq", "list"],
        ["reconcile", "--reports"],
        ["policy", "history"],
        ["policy", "validate", str(ROOT / "shared" / "minichat" / "policies" / "default.json")],
    ):
        done = command(*arguments, *api)
        assert done.returncode == 0, done.stderr


def test_what_needs_more_says_so(command: Command) -> None:
    for arguments in (["dev"], ["doctor", "--local"], ["turns", "running"]):
        refused = command(*arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("minichat: this needs more than is installed here (")
        assert refused.stderr.endswith("pip install 'minichat[functions,local]'.\n")
    assert "talk to a deployment" in command("--help").stdout
