"""What is locked, and what a function's zip holds."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
NOT_OURS = {".git", ".venv", ".tools", ".aws-sam", ".minichat", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
INDEX = re.compile(
    r"https?://\S*/simple\b|https?://(files|registry)\.|--(extra-)?index-url|--find[-]links|--trusted[-]host"
)
START = """
import importlib, sys

class NotInLambda:
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv[2:])
sys.meta_path.insert(0, NotInLambda())
print(importlib.import_module(sys.argv[1]).__file__)
print(importlib.import_module("minichat").__file__)
"""


def test_the_layer_installs_the_runtime_lock() -> None:
    assert (ROOT / "layers" / "dependencies" / "requirements.txt").read_bytes() == (LOCKS / "runtime.txt").read_bytes()


def test_the_layer_keeps_the_description_of_every_service_that_functions_call() -> None:
    kept = re.search(r"^SERVICES := (.+)$", (ROOT / "layers" / "dependencies" / "Makefile").read_text(), re.MULTILINE)
    assert kept is not None
    called = {
        service
        for path in (ROOT / "shared" / "minichat").rglob("*.py")
        if not {"local", "cli"} & set(path.parts)
        for service in re.findall(r"""client\(\s*"([a-z0-9-]+)\"""", path.read_text(encoding="utf-8"))
    }
    assert {"s3", "sqs", "secretsmanager"} <= called
    # pynamodb makes the client of DynamoDB; credentials of a role may come through STS.
    assert set(kept[1].split()) == called | {"dynamodb", "sts"}


def test_locks_agree_with_each_other() -> None:
    runtime, local, dev = _pins("runtime"), _pins("local"), _pins("dev")
    assert runtime.items() <= local.items() <= dev.items()


def test_locks_hold_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert _names(project["dependencies"]) <= _pins("runtime").keys()
    assert _names(extras["local"]) <= _pins("local").keys()
    assert _names(extras["dev"]) <= _pins("dev").keys()
    for name in ("engine", "sam"):
        wanted = [line for line in (LOCKS / f"{name}.in").read_text().splitlines() if not line.startswith("#")]
        assert _names(wanted) <= _pins(name).keys()


@pytest.mark.parametrize("lock", sorted(path.stem for path in LOCKS.glob("*.txt")))
def test_every_pin_has_its_hashes(lock: str) -> None:
    text = re.sub(r"^\s*#.*\n", "", (LOCKS / f"{lock}.txt").read_text(), flags=re.MULTILINE)
    pin = r"[a-z0-9][a-z0-9._-]*==\S+( ; [^\\\n]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+"
    assert re.sub(pin, "", text).strip() == ""


def test_no_file_names_a_package_index() -> None:
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        for name in files:
            text = (Path(folder) / name).read_text(encoding="utf-8", errors="ignore")
            found += [f"{name}: {match[0]}" for match in INDEX.finditer(text)]
    assert found == []


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "functions").glob("*/handler.py")))
def test_a_function_starts_from_its_zip_and_the_layer_alone(name: str, tmp_path: Path) -> None:
    logical_id = "".join(word.capitalize() for word in name.split("_")) + "Function"
    build = ["make", "--makefile", "functions/Makefile", f"build-{logical_id}"]
    subprocess.run(build, cwd=ROOT, env={**os.environ, "ARTIFACTS_DIR": str(tmp_path)}, check=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == {"functions", "minichat"}
    assert {path.name for path in (tmp_path / "functions").iterdir()} - {"__pycache__"} == {"__init__.py", name}
    assert not {"local", "cli"} & {path.name for path in (tmp_path / "minichat").iterdir()}

    runtime = {*_pins("runtime"), "minichat"}
    owners = packages_distributions()
    absent = [module for module in owners if not runtime & {canonicalize_name(owner) for owner in owners[module]}]
    assert "pytest" in absent
    started = subprocess.run(
        [sys.executable, "-c", START, f"functions.{name}.handler", *absent],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "MINICHAT_CURSOR_SECRET": "0123456789abcdef" * 4},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    assert all(Path(line).is_relative_to(tmp_path) for line in started.stdout.splitlines())


def _pins(lock: str) -> dict[str, str]:
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    return {match[1]: match[2] for match in re.finditer(r"^([a-z0-9._-]+)==([^ ]+)", text, re.MULTILINE)}


def _names(requirements: list[str]) -> set[str]:
    return {str(canonicalize_name(Requirement(text).name)) for text in requirements}
