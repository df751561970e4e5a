"""The JavaScript client at the local stack, in Node: its own tests, connections cut everywhere, pages that die."""

import json
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import ROOT
from tests.support.http.client import Stack
from tests.support.http.cutting_proxy import PLACES, CuttingProxy, at_random
from tests.support.patience import PATIENCE

TESTS = ROOT / "clients" / "javascript" / "test"
CUTS = int(os.environ.get("CUTS", "30"))
DEATHS = (
    *("before it is kept", "once it is kept", "while it is sent", "once it is answered", "before it is forgotten"),
    *("once it is forgotten", "once it has begun", "in the answer", "at the end"),
)
WORDS = " ".join(f"word{number}" for number in range(1, 11))


def node(*arguments: str | Path, timeout: float = PATIENCE, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A program in Node, to its end."""
    executable = shutil.which("node")
    if executable is None:
        pytest.skip("node is not here")
    return subprocess.run(
        [executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("name", ["client", "faults", "ai-sdk"])
def test_a_program_does_all_that_the_client_offers(stack: Stack, name: str) -> None:
    if name == "ai-sdk" and not (TESTS.parent / "node_modules").exists():
        pytest.skip("the AI SDK is not installed (`make client-types` does it)")
    whose = uuid4().hex
    told = node(
        "--test",
        TESTS / f"{name}.test.mjs",
        MINICHAT_URL=stack.base_url,
        MINICHAT_TOKEN=stack.token("acme", whose),
        MINICHAT_PROVIDER=stack.about["provider_url"],
        MINICHAT_EXPIRED_TOKEN=stack.token("acme", whose, lifetime=timedelta(hours=-1)),
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_a_stream_that_is_cut_anywhere_is_told_whole_and_each_event_once(stack: Stack) -> None:
    with CuttingProxy(stack.base_url, at_random(seed=CUTS)) as proxy:
        while sum(proxy.cuts.values()) < CUTS or set(proxy.cuts) < set(PLACES):
            conversations = str(min(max((CUTS - sum(proxy.cuts.values())) // 5, 3), 24))
            token = stack.token("acme", uuid4().hex)
            told = node(TESTS / "conversations.mjs", proxy.url, stack.base_url, token, conversations)
            assert told.returncode == 0, told.stderr
            assert json.loads(told.stdout)["wrong"] == []
        print(f"{sum(proxy.cuts.values())} cuts: {dict(proxy.cuts)}")


def test_a_message_is_one_turn_wherever_its_page_dies(stack: Stack, tmp_path: Path) -> None:
    def outcome(death: str) -> tuple[str, int, list[str]]:
        """How the page died, turns of the chat once it was opened again, in two tabs, and what both had to send."""
        name, storage = uuid4().hex, tmp_path / f"{DEATHS.index(death)}.json"
        with stack.user("acme", name) as user:
            chat_id = user.new_chat()
            page = (TESTS / "sender.mjs", stack.base_url, stack.token("acme", name), chat_id, storage)
            died = node(*page, death)
            assert died.returncode == -9, died.stderr
            opened = node(*page, "never")
            assert opened.returncode == 0, opened.stderr
            said = json.loads(opened.stdout)
            one, other = said["tabs"]
            assert (one, said["left"]) == (other, 0)
            assert one["answers"] == [WORDS for _ in one["pending"]]
            while "running_request_id" in user.chat(chat_id):
                time.sleep(0.05)
            return death, len(user.messages(chat_id)) // 2, one["pending"]

    pending = ["[[words:10]][[delay:30]]"]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(outcome, DEATHS))
    assert found == [
        ("before it is kept", 0, []),
        *((death, 1, pending) for death in DEATHS[1:5]),
        *((death, 1, []) for death in DEATHS[5:]),
    ]
