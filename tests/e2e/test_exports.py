"""What users and administrators export, over HTTP and from the command line, at a running stack."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from minichat.local.issuer import as_uuid
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE


def made(http: httpx2.Client, path: str) -> dict[str, Any]:
    """The export, once it has ended."""
    until = time.monotonic() + PATIENCE
    while (found := http.get(path).json())["state"] == "running":
        assert time.monotonic() < until, found
        time.sleep(0.1)
    return dict(found)


def lines_of(export: dict[str, Any]) -> list[dict[str, Any]]:
    """What the files say, fetched by their links alone."""
    contents = {one["name"]: httpx2.get(one["url"], trust_env=False) for one in export["files"]}
    assert contents.pop("manifest.json").json()["counts"] == export["counts"]
    assert "attachment" in next(iter(contents.values())).headers["content-disposition"]
    return [json.loads(line) for one in contents.values() for line in one.text.splitlines()]


def test_a_user_exports_a_chat_and_everything_and_nobody_else_reads_it(stack: Stack) -> None:
    tenant = uuid4().hex
    with stack.user(tenant, "ann") as ann, stack.user(tenant, "tom") as tom:
        chat_id, other = ann.new_chat(title="Mine"), ann.new_chat()
        assert ann.send(chat_id, "[[say:what was said]]").text == "what was said"
        begun = ann.http.post(f"/chats/{chat_id}/exports")
        assert (begun.status_code, begun.json()["scope"], begun.json()["files"]) == (202, "chat", [])
        path = f"/exports/{begun.json()['id']}"
        assert begun.headers["location"].endswith(path)
        lines = lines_of(made(ann.http, path))
        assert "what was said" in [line.get("content") for line in lines]
        assert [line["id"] for line in lines if line["type"] == "chat"] == [chat_id]
        everything = made(ann.http, f"/exports/{ann.http.post('/exports').json()['id']}")
        assert {line["id"] for line in lines_of(everything) if line["type"] == "chat"} == {chat_id, other}
        assert tom.http.get(path).json()["code"] == "export_not_found"
        assert tom.http.post(f"/chats/{chat_id}/exports").json()["code"] == "chat_not_found"
        assert ann.http.get(f"/exports/{uuid4()}").json()["code"] == "export_not_found"


def test_an_administrator_exports_a_user_or_the_tenant_and_nobody_of_another_does(stack: Stack) -> None:
    tenant = uuid4().hex
    exports = f"/tenants/{as_uuid(tenant)}/exports"
    with stack.user(tenant, "ann") as ann, stack.operating(tenant, "tenant_admin") as admin:
        chat_id = ann.new_chat()
        of_user = admin.post(exports, json={"user_id": as_uuid("ann")})
        assert of_user.status_code == 202
        lines = lines_of(made(admin, f"{exports}/{of_user.json()['id']}"))
        assert [line["id"] for line in lines if line["type"] == "chat"] == [chat_id]
        assert admin.post(exports, json={}).json()["errors"][0]["field"] == "user_id"
        assert admin.post(exports, json={"whole_tenant": "another"}).json()["errors"][0]["field"] == "whole_tenant"
        whole = admin.post(exports, json={"whole_tenant": as_uuid(tenant)}).json()
        assert chat_id in str(lines_of(made(admin, f"{exports}/{whole['id']}")))
        assert [one["scope"] for one in admin.get(exports).json()["items"]] == ["user", "tenant"]
        assert admin.get(f"{exports}/{uuid4()}").json()["code"] == "export_not_found"
        assert ann.http.get(f"/exports/{whole['id']}").json()["code"] == "export_not_found"
    with stack.operating("others", "tenant_admin") as other:
        assert other.post(exports, json={"user_id": as_uuid("ann")}).json()["code"] == "tenant_not_found"


def test_a_user_is_exported_from_the_command_line(stack: Stack, tmp_path: Path) -> None:
    tenant = uuid4().hex

    def export(*arguments: str) -> subprocess.CompletedProcess[str]:
        where = ["--tenant", tenant, "--state", str(stack.state)]
        command = [sys.executable, "-m", "minichat.cli.main", "export", *arguments, *where]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    with stack.user(tenant, "ann") as ann:
        chat_id = ann.new_chat()
    begun = export("user", as_uuid("ann"))
    assert (begun.returncode, begun.stdout.split()[-1]) == (0, "ready"), (begun.stdout, begun.stderr)
    name = begun.stdout.split()[1]
    assert name in export("list").stdout
    assert export("continue", name).returncode == 0
    assert export("fetch", name, "--to", str(tmp_path / "of ann")).returncode == 0
    assert chat_id in "".join(file.read_text() for file in (tmp_path / "of ann").glob("data-*.jsonl"))
    assert export("fetch", str(uuid4()), "--to", str(tmp_path)).returncode == 2


@pytest.mark.parametrize("role", ["operator", "auditor", "service"])
def test_who_may_not_export_is_refused_in_their_own_tenant(stack: Stack, role: str) -> None:
    with stack.operating("acme", role) as client:
        refused = client.post(f"/tenants/{as_uuid('acme')}/exports", json={"user_id": "ann"})
    assert (refused.status_code, refused.json()["action"]) == (403, "data:export")
