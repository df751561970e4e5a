"""The documentation becomes a site, whole, and whoever reads it needs no network."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Strictly: no link leads nowhere, every anchor is there, and every page is in the navigation."""
    if find_spec("mkdocs") is None and "CI" not in os.environ:
        pytest.skip("what builds the site is not installed (`make docs-site`)")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return folder


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert (site / "docs" / "guides" / "run.html") in pages
    fetched = re.compile(r"""<(?!a )\w+ [^>]*(?:src|href)=["']?(?:https?:)?//[^ >]*""")
    assert [f"{path.name}: {found}" for path, text in pages.items() for found in fetched.findall(text)] == []


def test_pictures_are_drawn_by_the_script_that_comes_with_the_site(site: Path) -> None:
    page = (site / "docs" / "architecture.html").read_text(encoding="utf-8")
    assert '<pre class="mermaid">' in page
    assert re.search(r'<script src="(\.\./)+mermaid\.min\.js">', page)
