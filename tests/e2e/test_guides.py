"""The guides can be followed: their commands run here as they stand there, but for addresses."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from minichat.auth_settings import Auth
from minichat.local.issuer import JWKS_FILE, Issuer
from tests.conftest import ROOT
from tests.support.guide import Block, blocks, not_understood, run
from tests.support.http.client import Stack
from tests.support.providers.own_servers import own_server

# docs/deploy.md has a test of its own, which runs its commands against an engine.
GUIDES = ("README.md", "docs/guides/run.md", "docs/guides/connect.md", "docs/guides/python.md")


def _page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_way_to_a_first_answer_can_be_gone(stack: Stack, tmp_path: Path) -> None:
    said = run(_page("docs/guides/run.md"), stack, tmp_path, {})
    assert "You said: Hello" in said
    assert "0 failed" in said
    assert "You said: Are you still there?" in said


def test_a_model_and_a_login_can_be_connected(stack: Stack, tmp_path: Path) -> None:
    page = _page("docs/guides/connect.md")
    auth = Auth(**json.loads(page.partition("<<'END'\n")[2].partition("END\n")[0])["auth"])
    keys, now = stack.state / JWKS_FILE, datetime.now(UTC)
    token = Issuer(stack.state).token("acme", "ann", now=now, lifetime=timedelta(hours=1), auth=auth)
    (tmp_path / "my-token.txt").write_text(token)
    with own_server("ollama", "llama3.2:1b") as url:
        said = run(page, stack, tmp_path, {"http://localhost:11434": url, auth.jwks: str(keys)})
    assert "Hello from your own model." in said
    assert "The deployment accepts this token." in said
    assert "You said: Who am I?" in said


def test_a_program_in_python_can_be_written(stack: Stack, tmp_path: Path) -> None:
    said = run(_page("docs/guides/python.md"), stack, tmp_path, {})
    assert "Paris it is.\n" in said
    assert said.count("\n2 messages\n") == 2
    assert "['Rome is fine.', 'Oslo is fine.', 'Lima is fine.']" in said
    assert "[chat_not_found]" in said
    assert "You said: Hello from afar" in said


@pytest.mark.parametrize("page", GUIDES)
def test_what_needs_aws_or_docker_is_understood_by_its_programs(page: str) -> None:
    assert [line for block in blocks(_page(page)) if not block.is_run for line in not_understood(block)] == []


@pytest.mark.parametrize(
    "command",
    [".venv/bin/minichat doctor --stak minichat-dev", "make deplyo ENV=dev"],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    assert not_understood(Block(f"{command}\n", None, is_run=False)) == [command]
