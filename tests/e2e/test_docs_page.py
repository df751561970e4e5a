"""The page that shows the OpenAPI documents, in a real browser where one is installed."""

import hashlib
import re
import subprocess
from pathlib import Path

import httpx2
import pytest

from minichat.http.routes.docs_page import FOLDER, POLICY
from tests.conftest import ROOT, another_server
from tests.support.http.chromium import CHROMIUM
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

ORIGIN = re.compile(r"""(?:src|href)=["'](?:https?:)?//""")
SHA256 = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}
"""Of the files as swagger-ui-dist 5.35.0 has them (`make docs-page` checks its package)."""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize(
    ("query", "shown"),
    [("", ["Send message", "Resume turn"]), ("?of=operators", ["List api keys", "Redrive dead letters"])],
)
def test_a_browser_shows_the_document_asks_no_other_host_and_has_nothing_to_complain_about(
    stack: Stack, tmp_path: Path, query: str, shown: list[str]
) -> None:
    assert CHROMIUM is not None
    elsewhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", elsewhere]
    options += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--virtual-time-budget=60000", "--dump-dom"]
    page = subprocess.run(
        [CHROMIUM, *options, f"{stack.base_url}/docs{query}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 4,
        check=True,
    )
    for name in shown:
        assert name in page.stdout
    assert re.findall(r"CONSOLE.*", page.stderr) == []


def test_the_page_is_all_of_this_server_and_may_load_nothing_else(stack: Stack) -> None:
    with httpx2.Client(base_url=stack.base_url, trust_env=False, timeout=PATIENCE) as http:
        page = http.get("/docs")
        assert page.headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY
        assert not ORIGIN.search(page.text)
        files = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
        assert len(files) == 4
        for file in files:
            answer = http.get(f"/{file}")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-type"].startswith("text/css" if file.endswith("css") else "text/javascript")
        for name in ("other.js", "..%2F..%2Fapp.py", "NOTICE"):
            assert http.get(f"/docs/{name}").json()["code"] == "not_found"


def test_a_setting_takes_the_page_away(stack: Stack) -> None:
    with another_server(stack, MINICHAT_DOCS_PAGE="false") as server:
        for path in ("/docs", "/docs/page.js"):
            assert httpx2.get(f"{server.base_url}{path}", trust_env=False).json()["code"] == "not_found"
        root = httpx2.get(server.base_url.removesuffix("/mini-chat/v1"), trust_env=False).json()
        assert "docs" not in root


@pytest.mark.parametrize("name", SHA256)
def test_what_is_vendored_is_what_was_published(stack: Stack, name: str) -> None:
    served = httpx2.get(f"{stack.base_url}/docs/{name}", trust_env=False, timeout=PATIENCE).content
    assert hashlib.sha256(served).hexdigest() == SHA256[name]
    assert (FOLDER / "LICENSE").read_text("utf-8").strip().startswith("Apache License")
    assert "SWAGGER_UI := 5.35.0" in (ROOT / "Makefile").read_text("utf-8")
