"""What a function's zip holds, and that it starts from that and its layers alone."""

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from minichat.local.tables import load_template
from tests.support.patience import PATIENCE
from tests.unit.test_packaging import ROOT, pins, said_by_the_layer

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

FILES = "from minichat.http.console import console_files; print(*console_files().files, console_files().version)"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "functions").glob("*/handler.py")))
def test_a_function_starts_from_its_zip_and_the_layer_alone(name: str, tmp_path: Path) -> None:
    logical_id = "".join(word.capitalize() for word in name.split("_")) + "Function"
    build = ["make", "--makefile", "functions/Makefile", f"build-{logical_id}"]
    subprocess.run(build, cwd=ROOT, env={**os.environ, "ARTIFACTS_DIR": str(tmp_path)}, check=True, timeout=120)
    # The API function also has the console, whose modules import the client's own.
    pages = {"console", "clients"} if name == "api" else set()
    assert {path.name for path in tmp_path.iterdir()} == {"functions", "minichat"} | pages
    assert {path.name for path in (tmp_path / "functions").iterdir()} - {"__pycache__"} == {"__init__.py", name}
    assert not {"local", "cli"} & {path.name for path in (tmp_path / "minichat").iterdir()}

    layers = load_template(ROOT / "template.yaml")["Resources"][logical_id]["Properties"].get("Layers", ())
    images = pins("images") if "ImagesLayer" in layers else {}
    cedar = pins("cedar") if "CedarLayer" in layers else {}
    runtime = {*pins("runtime"), *images, *cedar, "minichat"}
    owners = packages_distributions()
    absent = [module for module in owners if not runtime & {canonicalize_name(owner) for owner in owners[module]}]
    assert "pytest" in absent
    assert ("PIL" in absent) == (name != "attachment_ingest")
    absent += [left_out.replace("/", ".") for left_out in said_by_the_layer("ABSENT")]
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


def test_the_zip_of_the_api_has_all_that_the_console_loads(tmp_path: Path) -> None:
    build = ["make", "--makefile", "functions/Makefile", "build-ApiFunction"]
    subprocess.run(build, cwd=ROOT, env={**os.environ, "ARTIFACTS_DIR": str(tmp_path)}, check=True, timeout=120)
    found = [
        subprocess.run(
            [
                sys.executable,
                "-c",
                "from minichat.http.console import console_files as c; print(*c().files, c().version)",
            ],
            env={**os.environ, "PYTHONPATH": str(package)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for package in (tmp_path, ROOT / "shared")
    ]
    assert found[0] == found[1]
    assert "clients/javascript/src/index.js" in found[0]
