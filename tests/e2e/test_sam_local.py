"""The built functions in containers of `sam local`, beside a running stack: `make containers`."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from minichat.local import containers
from minichat.local.lambda_events import scheduled_event
from minichat.local.process import free_port
from tests.conftest import ROOT, running_stack
from tests.support.aws.emulator import SAM
from tests.support.http import conversation
from tests.support.http.client import User

pytestmark = pytest.mark.skipif("CONTAINERS" not in os.environ, reason="needs Docker (`make containers`)")


def test_a_conversation_and_a_schedule_in_containers(tmp_path: Path) -> None:
    port = free_port()
    with running_stack(tmp_path, "--sam-local", str(port)) as stack:
        assert f"http://127.0.0.1:{port}/mini-chat/v1" in stack.said
        with User(f"http://127.0.0.1:{port}/mini-chat/v1", stack.token("acme", "ann")) as user:
            # Each function's first request builds its image and starts its container.
            assert user.http.get("/health").json()["status"] == "ok"
            chat = conversation.hold(user)
            with stack.user("acme", "ann") as same:
                assert same.chat(chat)["title"] == "Capitals"
            assert user.http.delete(f"/chats/{chat}").status_code == 204
        event = tmp_path / "event.json"
        event.write_text(json.dumps(scheduled_event("every-minute", datetime.now(UTC))))
        command = [str(SAM / "bin" / "sam"), "local", "invoke", "OrphanWatchdogFunction", "--event", str(event)]
        command += ["--env-vars", str(tmp_path / containers.FILE)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        assert run.returncode == 0, run.stderr
        print(" ", run.stdout.strip())
        assert "errorType" not in run.stdout
