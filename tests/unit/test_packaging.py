"""What is locked."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
NOT_OURS = {
    ".git",
    ".venv",
    ".tools",
    ".aws-sam",
    ".site",
    ".minichat",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    "node_modules",
}
INDEX = re.compile(
    r"https?://\S*/simple\b|https?://(files|registry)\.|--(extra-)?index-url|--find[-]links|--trusted[-]host"
)
LAYERS = {"dependencies": "runtime", "images": "images", "cedar": "cedar"}


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
    assert set(said_by_the_layer("SERVICES")) == called | {"dynamodb", "sts"}


def test_locks_agree_with_each_other() -> None:
    runtime, local, dev = pins("runtime"), pins("local"), pins("dev")
    assert runtime.items() <= local.items() <= dev.items()
    assert pins("images").items() <= local.items()
    assert pins("cedar").items() <= local.items()
    assert not runtime.keys() & (pins("images").keys() | pins("cedar").keys())


def test_locks_hold_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert _names(extras["functions"]) <= pins("runtime").keys()
    assert _names(extras["cli"]) <= pins("local").keys()
    assert _names(extras["images"]) == pins("images").keys()
    assert _names(extras["cedar"]) == pins("cedar").keys()
    assert _names(extras["local"]) <= pins("local").keys()
    assert _names(extras["dev"]) <= pins("dev").keys()
    for name in ("cedar", "docs", "engine", "images", "mutants", "sam"):
        wanted = [line for line in (LOCKS / f"{name}.in").read_text().splitlines() if not line.startswith("#")]
        assert _names(wanted) <= pins(name).keys()


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


def said_by_the_layer(name: str) -> list[str]:
    """What the Makefile of the layer of dependencies says."""
    found = re.search(rf"^{name} := (.+)$", (ROOT / "layers" / "dependencies" / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock with their versions."""
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    return {match[1]: match[2] for match in re.finditer(r"^([a-z0-9._-]+)==([^ ]+)", text, re.MULTILINE)}


def _names(requirements: list[str]) -> set[str]:
    return {str(canonicalize_name(Requirement(text).name)) for text in requirements}
