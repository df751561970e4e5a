"""The JavaScript client as a package: its types hold, it says what the API says, and it is small."""

import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.reference import javascript_types
from tests.reference.javascript_types import CLIENT

TOOLS = CLIENT / "node_modules" / ".bin"
LARGEST_BYTES = 8_000
needs_tools = pytest.mark.skipif(not TOOLS.exists(), reason="its tools are not installed (`make client-types` does it)")


@needs_tools
def test_its_types_hold_as_strictly_as_the_compiler_can() -> None:
    told = subprocess.run([TOOLS / "tsc"], cwd=CLIENT, capture_output=True, text=True, timeout=200, check=False)
    assert told.returncode == 0, told.stdout


@needs_tools
def test_its_types_are_those_of_the_document() -> None:
    assert javascript_types.made() == javascript_types.TYPES.read_text(), "`make client-types` writes them"


@needs_tools
def test_what_a_page_loads_is_small() -> None:
    command: list[str | Path] = [
        TOOLS / "esbuild",
        "src/index.js",
        "--bundle",
        "--minify",
        "--format=esm",
        "--target=es2022",
    ]
    bundle = subprocess.run(command, cwd=CLIENT, capture_output=True, timeout=60, check=True).stdout
    assert len(gzip.compress(bundle, 9)) < LARGEST_BYTES


def test_every_code_of_a_problem_has_its_class() -> None:
    listed = Path(CLIENT.parents[1], "docs", "reference", "errors.md").read_text().partition("## In a stream")[0]
    codes = re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE)
    source = (CLIENT / "src" / "errors.js").read_text()
    classes = {code: "".join(word.title() for word in code.split("_")) for code in codes}
    assert len(codes) > 40
    assert dict(re.findall(r"^  (\w+): (\w+),$", source, re.MULTILINE)) == classes
    assert set(re.findall(r"^export class (\w+) extends Problem", source, re.MULTILINE)) == set(classes.values())


def test_it_depends_on_nothing_and_its_tools_are_locked() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert "dependencies" not in package
    locked = json.loads((CLIENT / "package-lock.json").read_text())["packages"]
    assert {name: one["version"] for name in package["devDependencies"] if (one := locked[f"node_modules/{name}"])} == (
        package["devDependencies"]
    )
    assert [name for name, one in locked.items() if name and "integrity" not in one] == []
