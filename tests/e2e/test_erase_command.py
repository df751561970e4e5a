"""A user is erased from the command line, at a running stack, with everything that is about them."""

import json
import subprocess
import sys
import time
from uuid import uuid4

from tests.support.http.client import Stack
from tests.support.patience import PATIENCE


def erase(stack: Stack, tenant: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `minichat erase` says for a tenant of the stack."""
    where = ["--tenant", tenant, "--state", str(stack.state)]
    command = [sys.executable, "-m", "minichat.cli.main", "erase", *arguments, *where]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_user_is_erased_and_the_check_finds_nothing(stack: Stack) -> None:
    tenant, person, other = (uuid4().hex for _ in range(3))
    with stack.user(tenant, person) as user, stack.user(tenant, other) as neighbour:
        chat_id, kept = user.new_chat(), neighbour.new_chat()
        assert user.send(chat_id, "[[say:what nobody else may know]]").text == "what nobody else may know"
        assert neighbour.send(kept, "[[say:mine]]").text == "mine"
        assert erase(stack, tenant, "check", "--user", person).returncode == 1
        begun = erase(stack, tenant, "user", person)
        erasure, ended = begun.stdout.split()[1], begun
        until = time.monotonic() + PATIENCE
        while ended.returncode == 1:
            assert time.monotonic() < until, ended.stdout
            ended = erase(stack, tenant, "continue", erasure)
        assert (ended.returncode, ended.stdout.split()[-1]) == (0, "complete"), (ended.stdout, ended.stderr)
        shown = json.loads(erase(stack, tenant, "show", erasure).stdout)
        assert (shown["signature"], shown["user_id"], shown["completed_at"] is None) == ("valid", None, False)
        left = json.loads(erase(stack, tenant, "check", "--user", person, "--json").stdout)
        assert [one for one in left if one["until"] is None] == []
        assert user.http.get("/chats").json()["items"] == []
        assert [one["id"] for one in neighbour.http.get("/chats").json()["items"]] == [kept]
    assert erase(stack, tenant, "show", str(uuid4())).returncode == 2
