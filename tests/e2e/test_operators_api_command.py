"""The command line through the operator's API, with a token alone: no credentials of AWS, no settings, no folder."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from minichat.local.issuer import as_uuid
from minichat.local.process import free_port
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE


def minichat(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment that has nothing of AWS, and no folder with its credentials."""
    bare = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = [sys.executable, "-m", "minichat.cli.main", *arguments]
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nowhere"}
    said = bare | nothing | environment
    return subprocess.run(command, env=said, capture_output=True, text=True, timeout=PATIENCE, check=False)


def access(stack: Stack, tenant: str, *roles: str) -> dict[str, str]:
    """The two variables that name the API and a caller."""
    token = stack.token(tenant, "olga", roles=roles)
    return {"MINICHAT_ADMIN_API": stack.operators_url, "MINICHAT_ADMIN_TOKEN": token}


def test_an_operator_needs_a_token_and_nothing_of_aws(stack: Stack, tmp_path: Path) -> None:
    operator, tenant = access(stack, "us", "operator"), uuid4().hex
    today = datetime.now(UTC).date().isoformat()
    layer = tmp_path / "layer.json"
    layer.write_text(json.dumps({"kill_switches": {"disable_web_search": True}}))
    for published in (["policy", "validate", str(layer)], ["policy", "publish", str(layer)], ["policy", "history"]):
        told = minichat(operator, *published, "--tenant", tenant)
        assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[1].split()[:2] == ["1", "*"]
    assert told.stdout.split()[-2:] == [as_uuid("olga"), "kill_switches"]
    days = ["--tenant", tenant, "--from", "2020-01-01", "--to", today]
    commands = [["turns", "running"], ["dlq", "list"], ["dlq", "show", "usage"], ["providers", "history"]]
    for command in (*commands, ["usage", *days, "--by", "model"], ["reconcile", "--reports", "--tenant", tenant]):
        told = minichat(operator, *command)
        assert (told.returncode, "Traceback" in told.stderr) == (0, False), (command, told.stderr)


def test_a_running_turn_is_stopped_by_its_tenants_administrator(stack: Stack, tmp_path: Path) -> None:
    url, token = access(stack, "acme", "tenant_admin").values()
    (tmp_path / "token").write_text(token)
    named = ["--api", url, "--token-file", str(tmp_path / "token")]
    with stack.user("acme") as user:
        chat_id, hold = user.new_chat(), uuid4().hex
        body = {"content": f"[[hold:{hold}]] hello"}
        with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
            request_id = str(next(events).data["request_id"])
            running = minichat({}, "turns", "running", "--tenant", as_uuid("acme"), "--json", *named)
            assert request_id in [one["request_id"] for one in json.loads(running.stdout)], running.stderr
            asked = minichat({}, "turns", "cancel", "--tenant", as_uuid("acme"), chat_id, request_id, *named)
            assert (asked.returncode, asked.stdout) == (0, "The turn is asked to stop.\n"), asked.stderr
            stack.release(hold)
            list(events)


@pytest.mark.parametrize(
    ("roles", "said", "told"),
    [
        ((), {}, "[forbidden]. The token needs the role operator"),
        (("operator",), {"MINICHAT_ADMIN_TOKEN": "x"}, "Give a valid token with --token-file"),
        (("operator",), {"MINICHAT_ADMIN_API": f"http://127.0.0.1:{free_port()}"}, "Is --api (or MINICHAT_ADMIN_API)"),
        (("operator",), {"MINICHAT_ADMIN_TOKEN": "two words"}, "characters that no token has"),
    ],
)
def test_who_is_refused_is_told_in_one_line_what_to_do(
    stack: Stack, roles: tuple[str, ...], said: dict[str, str], told: str
) -> None:
    refused = minichat(access(stack, "acme", *roles) | said, "turns", "running")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert told in refused.stderr
