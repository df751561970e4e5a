"""The JavaScript client's source, and the example with `useChat`, in Chromium at the local stack."""

import functools
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest

from tests.conftest import ROOT, another_server
from tests.support.http.chromium import CHROMIUM
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

CLIENT, EXAMPLE = ROOT / "clients" / "javascript", ROOT / "examples" / "ai-sdk"
TOOLS = CLIENT / "node_modules"


class Pages(SimpleHTTPRequestHandler):
    """Files of a folder, without a word on the terminal."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the client's source is served as it is, and the example as esbuild makes it."""
    if not (TOOLS / "esbuild").exists():
        pytest.skip("the example's packages are not installed (`make client-types` does it)")
    folder = tmp_path_factory.mktemp("pages")
    (folder / "src").symlink_to(CLIENT / "src")
    (folder / "empty.html").write_text('<!doctype html><link rel="icon" href="data:,">')
    shutil.copytree(EXAMPLE, folder / "ai-sdk", ignore=shutil.ignore_patterns("node_modules"))
    aliases = (
        f"--alias:@minichat/client={CLIENT}/src/index.js",
        f"--alias:@minichat/client/ai-sdk={CLIENT}/src/ai-sdk.js",
    )
    subprocess.run(
        [
            TOOLS / ".bin" / "esbuild",
            "app.jsx",
            "--bundle",
            "--format=esm",
            "--jsx=automatic",
            "--outfile=app.js",
            *aliases,
        ],
        cwd=folder / "ai-sdk",
        env={**os.environ, "NODE_PATH": str(TOOLS)},
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_loses_nothing_and_sends_nothing_twice(stack: Stack, pages: str) -> None:
    if CHROMIUM is None:
        pytest.skip("chromium is not here")
    with another_server(stack, MINICHAT_CORS__ALLOWED_ORIGINS=f'["{pages}"]') as server:
        told = subprocess.run(
            ["node", "--test", CLIENT / "test" / "browser.test.mjs"],
            env={
                **os.environ,
                "MINICHAT_URL": server.base_url,
                "MINICHAT_TOKEN": stack.token("acme", uuid4().hex),
                "MINICHAT_PROVIDER": stack.about["provider_url"],
                "PAGES": pages,
                "CHROMIUM": CHROMIUM,
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert told.returncode == 0, told.stdout + told.stderr
