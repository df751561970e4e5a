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

from minichat.local.tables import load_template
from tests.support.patience import PATIENCE

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


LAYERS = {"dependencies": "runtime", "images": "images"}


@pytest.mark.parametrize(("layer", "lock"), LAYERS.items())
def test_a_layer_installs_its_lock(layer: str, lock: str) -> None:
    assert (ROOT / "layers" / layer / "requirements.txt").read_bytes() == (LOCKS / f"{lock}.txt").read_bytes()


def test_the_layer_keeps_the_description_of_every_service_that_functions_call() -> None:
    called = {
        service
        for path in (ROOT / "shared" / "minichat").rglob("*.py")
        if not {"local", "cli"} & set(path.parts)
        for service in re.findall(r"""client\(\s*"([a-z0-9-]+)\"""", path.read_text(encoding="utf-8"))
    }
    assert {"s3", "sqs", "secretsmanager"} <= called
    # pynamodb makes the client of DynamoDB; credentials of a role may come through STS.
    assert set(_variable("SERVICES")) == called | {"dynamodb", "sts"}


def test_locks_agree_with_each_other() -> None:
    runtime, local, dev = _pins("runtime"), _pins("local"), _pins("dev")
    assert runtime.items() <= local.items() <= dev.items()
    assert _pins("images").items() <= local.items()
    assert not runtime.keys() & _pins("images").keys()


def test_locks_hold_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert _names(project["dependencies"]) <= _pins("runtime").keys()
    assert _names(extras["images"]) == _pins("images").keys()
    assert _names(extras["local"]) <= _pins("local").keys()
    assert _names(extras["dev"]) <= _pins("dev").keys()
    for name in ("engine", "images", "sam"):
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
    subprocess.run(build, cwd=ROOT, env={**os.environ, "ARTIFACTS_DIR": str(tmp_path)}, check=True, timeout=120)
    assert {path.name for path in tmp_path.iterdir()} == {"functions", "minichat"}
    assert {path.name for path in (tmp_path / "functions").iterdir()} - {"__pycache__"} == {"__init__.py", name}
    assert not {"local", "cli"} & {path.name for path in (tmp_path / "minichat").iterdir()}

    layers = load_template(ROOT / "template.yaml")["Resources"][logical_id]["Properties"].get("Layers", ())
    images = _pins("images") if "ImagesLayer" in layers else {}
    runtime = {*_pins("runtime"), *images, "minichat"}
    owners = packages_distributions()
    absent = [module for module in owners if not runtime & {canonicalize_name(owner) for owner in owners[module]}]
    assert "pytest" in absent
    assert ("PIL" in absent) == (name != "attachment_ingest")
    absent += [left_out.replace("/", ".") for left_out in _variable("ABSENT")]
    started = subprocess.run(
        [sys.executable, "-c", START, f"functions.{name}.handler", *absent],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "MINICHAT_CURSOR_SECRET": "0123456789abcdef" * 4},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    assert all(Path(line).is_relative_to(tmp_path) for line in started.stdout.splitlines())


def _variable(name: str) -> list[str]:
    """What the Makefile of the layer of dependencies says."""
    found = re.search(rf"^{name} := (.+)$", (ROOT / "layers" / "dependencies" / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def _pins(lock: str) -> dict[str, str]:
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    return {match[1]: match[2] for match in re.finditer(r"^([a-z0-9._-]+)==([^ ]+)", text, re.MULTILINE)}


def _names(requirements: list[str]) -> set[str]:
    return {str(canonicalize_name(Requirement(text).name)) for text in requirements}
