"""A server in the process of the tests, where a tracer sees it and a mutant is what it loads."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from minichat.local.process import free_port
from minichat.local.server import create_both
from minichat.local.stack import PAGES_OF_THIS_MACHINE
from minichat.settings import load
from tests.conftest import of_servers
from tests.support.http.client import Stack


@contextmanager
def served_here(state: Path) -> Iterator[Stack]:
    """The stack that runs with this folder, served by this process too: what serves it can be watched, and changed."""
    about = json.loads((state / "dev.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in of_servers(about, state).items():
            patch.setenv(name, value)
        patch.setenv("MINICHAT_CORS__ALLOWED_ORIGINS", PAGES_OF_THIS_MACHINE)
        port = free_port()
        server = uvicorn.Server(
            uvicorn.Config(
                create_both(load(os.environ)), port=port, log_level="warning", timeout_graceful_shutdown=1, http="h11"
            )
        )
        serving = threading.Thread(target=server.run)
        serving.start()
        while not server.started:
            assert serving.is_alive()
            time.sleep(0.01)
        about["base_url"] = f"http://127.0.0.1:{port}/mini-chat/v1"
        yield Stack(about, state)
        server.should_exit = True
        serving.join()
