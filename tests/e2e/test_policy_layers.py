"""Tenants with layers of their own: each has its own models, prices, prompts, limits and switches, and no other's."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest

from minichat.cli.main import main as minichat
from minichat.local.issuer import as_uuid
from tests.conftest import another_server
from tests.support.http.client import Stack, User

LIMIT = 90_000_000


def limits(micro: int) -> dict[str, Any]:
    one = {"limit_daily_credits_micro": micro, "limit_monthly_credits_micro": 10 * micro}
    return {"standard": one, "premium": one}


LAYERS: dict[str, dict[str, Any]] = {
    "north": {
        "models": {"deny": ["gpt-4.1"]},
        "own": {"gpt-4.1-mini": {"input_tokens_credit_multiplier_micro": 3_000_000}},
        "system_prompt": "You are the north's.",
        "kill_switches": {"disable_web_search": True},
        "user_limits": {"default": limits(LIMIT)},
    },
    "south": {
        "models": {"allow": ["gpt-4.1", "gpt-4.1-mini"]},
        "own": {"gpt-4.1-mini": {"system_prompt": "You are the south's mini."}},
        "default_model": "gpt-4.1-mini",
        "kill_switches": {"disable_images": True},
        "user_limits": {"default": limits(2 * LIMIT)},
    },
}


def command(stack: Stack, *arguments: str) -> tuple[int, str]:
    """The exit code of `minichat policy`, and what it says; in this process, which starts in no time."""
    said = io.StringIO()
    # The command points its process to the stack by variables.
    with patch.dict(os.environ), redirect_stdout(said), redirect_stderr(said):
        code = minichat(["policy", *arguments, "--state", str(stack.state)])
    return code, said.getvalue()


class Tenants:
    """Tenants of a stack that no other test has, at a server that follows every change at once."""

    def __init__(self, stack: Stack, server: another_server, folder: Path) -> None:
        self._stack, self._server, self._folder = stack, server, folder
        self._names = {name: uuid4().hex for name in ("north", "south", "plain")}

    def publish(self, tenant: str, layer: dict[str, Any] | None, user: str | None = None) -> str:
        """What the command says that publishes a layer, or withdraws it."""
        of = ["--tenant", as_uuid(self._names[tenant])] + ([] if user is None else ["--user", as_uuid(user)])
        file = self._folder / "layer.json"
        file.write_text(json.dumps(layer))
        what = ["withdraw"] if layer is None else ["publish", str(file)]
        code, said = command(self._stack, *what, *of)
        assert code == 0, said
        return said

    def says(self, tenant: str, *arguments: str) -> str:
        """What a command says of a tenant's layer."""
        _, said = command(self._stack, *arguments, "--tenant", as_uuid(self._names[tenant]))
        return said

    def user(self, tenant: str, user: str = "ann") -> User:
        """A user of a tenant."""
        return self._server.user(self._names[tenant], user)


@pytest.fixture
def tenants(stack: Stack, tmp_path: Path) -> Iterator[Tenants]:
    with another_server(stack, MINICHAT_POLICY_REFRESH_SECONDS="0") as server:
        yield Tenants(stack, server, tmp_path)


def _daily(user: User) -> dict[str, Any]:
    (total,) = (tier for tier in user.http.get("/quota/status").json()["tiers"] if tier["tier"] == "total")
    return dict(next(period for period in total["periods"] if period["period"] == "daily"))


def experienced(user: User) -> dict[str, Any]:
    """Everything that the policy has for a user, as the API shows it."""
    chat_id = user.new_chat()
    models = [model["model_id"] for model in user.http.get("/models").json()["items"]]
    before = _daily(user)
    mini = user.new_chat(model="gpt-4.1-mini")
    said = user.send(mini, "[[instructions]] [[usage:1000,0]]").text
    spent = _daily(user)["used_credits_micro"] - before["used_credits_micro"]
    searched = user.send(mini, "[[say:x]] [[usage:1,0]]", web_search={"enabled": True})
    return {
        "models": models,
        "default": user.chat(chat_id)["model"],
        "instructions": said,
        "a thousand tokens": spent,
        "limit": before["limit_credits_micro"],
        "web search": searched.problem.get("code", "there"),
    }


def test_each_tenant_has_its_own_and_a_change_of_one_never_reaches_another(tenants: Tenants) -> None:
    with tenants.user("plain") as plain, tenants.user("north") as north, tenants.user("south") as south:
        before = experienced(plain)
        for name, layer in LAYERS.items():
            assert tenants.publish(name, layer).startswith("Version 1 is in force")
        cold, warm = experienced(north), experienced(south)
        assert cold == {
            "models": ["gpt-4.1-mini", "gpt-4.1-nano"],
            "default": "gpt-4.1-mini",
            "instructions": "You are the north's.",
            "a thousand tokens": 3_000,
            "limit": LIMIT,
            "web search": "web_search_disabled",
        }
        assert warm == before | {
            "models": ["gpt-4.1", "gpt-4.1-mini"],
            "default": "gpt-4.1-mini",
            "instructions": "You are the south's mini.",
            "limit": 2 * LIMIT,
        }
        assert experienced(plain) == before
        # A change of one, and its end.
        changed = LAYERS["north"] | {"system_prompt": "You are new.", "kill_switches": {}}
        assert tenants.publish("north", changed).startswith("Version 2")
        assert experienced(north) == cold | {"instructions": "You are new.", "web search": "there"}
        assert tenants.publish("north", None).startswith("Version 3")
        assert experienced(north) == before
        assert (experienced(south), experienced(plain)) == (warm, before)


@pytest.mark.holds("turns.layers-next-send")
def test_a_users_limits_are_in_force_at_their_next_send_and_nobody_elses(tenants: Tenants) -> None:
    with tenants.user("plain") as ann, tenants.user("plain", "bob") as bob:
        chat_id, other = ann.new_chat(model="gpt-4.1-mini"), bob.new_chat(model="gpt-4.1-mini")
        assert ann.send(chat_id, "[[say:yes]]").text == "yes"
        tenants.publish("plain", {"limits": limits(0)}, user="ann")
        assert ann.send(chat_id, "[[say:yes]]").problem["code"] == "quota_exceeded"
        assert bob.send(other, "[[say:yes]]").text == "yes"
        tenants.publish("plain", {"models": {"deny": ["gpt-4.1-nano"]}}, user="ann")
        assert "gpt-4.1-nano" not in ann.http.get("/models").text
        assert ann.http.post("/chats", json={"model": "gpt-4.1-nano"}).json()["code"] == "invalid_model"
        assert ann.send(chat_id, "[[say:yes]]").text == "yes"


def test_the_command_says_what_is_wrong_what_would_change_and_what_was(tenants: Tenants, tmp_path: Path) -> None:
    tenants.publish("north", LAYERS["north"])
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps({"models": {"allow": ["gpt-4.1"], "deny": ["gpt-4.1", "gpt-9"]}}))
    for action in ("validate", "publish"):
        said = tenants.says("north", action, str(file))
        assert "models.deny.0: " in said
        assert "models.deny.1: There is no model 'gpt-9'" in said
    file.write_text(json.dumps(LAYERS["north"] | {"system_prompt": "Other."}))
    (difference,) = tenants.says("north", "diff", str(file)).splitlines()[1:]
    assert difference.split()[0] == "system_prompt"
    assert json.loads(tenants.says("north", "show"))["models"] == {"deny": ["gpt-4.1"]}
    assert [line.split()[:2] for line in tenants.says("north", "history").splitlines()[1:]] == [["1", "*"]]
