"""What operators do from a terminal: policies, running turns, reconciliation, against a running stack."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from minichat.local.process import free_port
from minichat.services.policy_in_force import SHIPPED_POLICY
from minichat.settings import Store
from tests.conftest import another_server, patient, running_stack
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

FOLLOW_SECONDS = 60


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose policy no other test depends on."""
    with running_stack(tmp_path_factory.mktemp("operated")) as stack:
        yield stack


def minichat(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minichat.cli.main", *arguments, "--state", str(stack.state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def policy_file(folder: Path, version: int, **changed: Any) -> Path:
    policy = json.loads(SHIPPED_POLICY.read_text()) | {"policy_version": version} | changed
    file = folder / "policy.json"
    file.write_text(json.dumps(policy))
    return file


def models(stack: Stack) -> list[str]:
    with stack.user() as user:
        return [model["model_id"] for model in user.http.get("/models").json()["items"]]


def in_force(stack: Stack) -> int:
    return int(json.loads(minichat(stack, "policy", "show").stdout)["policy_version"])


@pytest.mark.holds("contract.models")
def test_a_published_policy_is_followed_within_seconds_without_a_restart(operated: Stack, tmp_path: Path) -> None:
    assert "gpt-4.1-nano" in models(operated)
    shipped = json.loads(SHIPPED_POLICY.read_text())["model_catalog"]
    catalog = [model | {"enabled": model["id"] != "gpt-4.1-nano"} for model in shipped]
    published = minichat(operated, "policy", "publish", str(policy_file(tmp_path, 7, model_catalog=catalog)))
    assert (published.returncode, published.stdout.split(" is")[0]) == (0, "Version 7")
    deadline = time.monotonic() + FOLLOW_SECONDS
    while "gpt-4.1-nano" in models(operated):
        assert time.monotonic() < deadline, "the server does not follow"
    with operated.user() as user:
        assert user.http.get("/models/gpt-4.1-nano").json()["code"] == "model_not_found"
        assert user.http.post("/chats", json={"model": "gpt-4.1-nano"}).json()["code"] == "invalid_model"
    assert in_force(operated) == 7
    history = minichat(operated, "policy", "history").stdout.splitlines()
    assert [line.split()[:2] for line in history[1:2]] == [["7", "*"]]


def test_a_turn_is_found_by_what_its_provider_calls_the_answer_and_no_client_is_told_that(operated: Stack) -> None:
    with operated.user() as user:
        chat_id = user.new_chat(title="A chat")
        told = user.send(chat_id, "[[say:found]]")
        request_id = told.events[0].data["request_id"]
        shown = [user.http.get(f"/chats/{chat_id}/{path}").text for path in (f"turns/{request_id}", "messages")]
    said = operated.about["environment"]
    database = boto3.resource("dynamodb", endpoint_url=said["MINICHAT_STORE__ENDPOINT"], region_name="us-east-1")
    table = database.Table(Store().conversation_table)
    (called,) = {item["resp_id"] for item in table.scan()["Items"] if item["sk"] == f"TURN#{request_id}"}
    found = minichat(operated, "turns", "find", str(called))
    assert (found.returncode, [one["request_id"] for one in json.loads(found.stdout)]) == (0, [request_id])
    assert str(called) not in "".join([*shown, *(repr(event) for event in told.events)])
    nothing = minichat(operated, "turns", "find", "resp_of_nobody")
    assert (nothing.returncode, json.loads(nothing.stdout)) == (1, [])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"policy_version": 1}, "Version 1 cannot follow version"),
        ({"path": ("model_catalog", 0, "output_tokens_credit_multiplier_micro"), "value": 0}, "model_catalog.0.output"),
        ({"path": ("model_catalog", 2, "preference"), "value": {"is_default": True}}, "model_catalog.2.preference"),
        ({"path": ("model_catalog", 1, "provider_id"), "value": "acme"}, "model_catalog.1.provider_id"),
    ],
)
@pytest.mark.holds("turns.publish-path")
def test_a_policy_that_is_refused_names_the_path_and_the_running_one_stays(
    operated: Stack, tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    before = in_force(operated), models(operated)
    file = policy_file(tmp_path, changed.get("policy_version", 1000))
    if "path" in changed:
        policy = json.loads(file.read_text())
        place = policy
        for key in changed["path"][:-1]:
            place = place[key]
        place[changed["path"][-1]] = changed["value"]
        file.write_text(json.dumps(policy))
    refused = minichat(operated, "policy", "publish", str(file))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert named in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (in_force(operated), models(operated)) == before


def test_a_file_can_be_checked_without_publishing_it(operated: Stack, tmp_path: Path) -> None:
    before = in_force(operated)
    checked = minichat(operated, "policy", "validate", str(policy_file(tmp_path, 5000)))
    assert (checked.returncode, "version 5000" in checked.stdout) == (0, True)
    assert in_force(operated) == before
    missing = minichat(operated, "policy", "show", "4999")
    assert (missing.returncode, missing.stderr) == (2, "minichat: There is no version 4999.\n")


def test_running_turns_are_shown_with_their_age(operated: Stack) -> None:
    assert minichat(operated, "turns", "running").stdout == "Nothing runs.\n"
    with another_server(operated, **patient(operated)) as server, server.user("acme", "slow") as user:
        chat_id, hold, request_id = user.new_chat(title="A chat"), uuid4().hex, str(uuid4())
        body = {"content": f"[[hold:{hold}]]", "request_id": request_id}
        with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
            next(events)
            (shown,) = json.loads(minichat(operated, "turns", "running", "--json").stdout)
            assert (shown["chat_id"], shown["request_id"], shown["model"]) == (chat_id, request_id, "gpt-4.1")
            assert 0 <= shown["silent_seconds"] <= shown["age_seconds"] < PATIENCE
            assert request_id in minichat(operated, "turns", "running").stdout
            operated.release(hold)
            assert [event.name for event in events][-1] == "done"


def consumed(stack: Stack, chat_id: str, times: int) -> list[str]:
    """What the log tells of a chat, once consumers have told that often of it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        told = minichat(stack, "events", "tail", chat_id).stdout.splitlines()
        if sum(" consumed " in line for line in told) >= times:
            return told
        assert time.monotonic() < deadline, told


def test_usage_is_told_as_a_table_csv_and_json(operated: Stack) -> None:
    _, user_id = operated.ids("metered", "ann")
    since = f"{datetime.now(UTC):%Y-%m-%d}"
    with operated.user("metered", "ann") as user:
        chat_id = user.new_chat(title="A chat")
        user.send(chat_id, "[[say:one]]")
        user.send(chat_id, "[[say:two]]")
    consumed(operated, chat_id, 4)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    of_days = ("usage", "--tenant", "metered", "--from", since, "--to", today)  # the name that `token` was told
    days = json.loads(minichat(operated, *of_days, "--format", "json").stdout)
    assert {day.pop("day") for day in days} <= {since, today}  # it is one day, unless midnight has just been
    used = {name: sum(day[name] for day in days) for name in days[0]}
    assert used["turns"] == 2
    assert min(used["credits_micro"], used["input_tokens"], used["output_tokens"]) > 0
    head, row = minichat(operated, *of_days, "--by", "user", "--format", "csv").stdout.splitlines()
    assert dict(zip(head.split(","), row.split(","), strict=True)) == {
        "user": user_id,
        **{name: str(value) for name, value in used.items()},
    }
    assert minichat(operated, *of_days).stdout.splitlines()[-1].split()[:3] == [
        "together",
        "2",
        str(used["credits_micro"]),
    ]
    before = minichat(operated, "usage", "--tenant", "metered", "--from", "2020-01-01", "--to", "2020-12-31")
    assert before.stdout.splitlines()[1].split()[:2] == ["together", "0"]
    assert "nothing is booked" in before.stderr
    assert "YYYY" in minichat(operated, *of_days[:4], "soon", "--to", today).stderr


def test_a_range_of_the_outbox_is_sent_again_and_changes_nothing(operated: Stack) -> None:
    since = f"{datetime.now(UTC):%Y-%m-%d}"
    with operated.user("again", "ann") as user:
        chat_id = user.new_chat(title="A chat")
        user.send(chat_id, "[[say:one]]")
    consumed(operated, chat_id, 2)
    wanted = ("outbox", "republish", "--since", since, "--tenant", "again")
    assert minichat(operated, *wanted, "--dry-run").stdout == "audit: 1\nusage: 1\n2 events would be sent, 0 refused\n"
    assert minichat(operated, *wanted).stdout == "audit: 1\nusage: 1\n2 events sent, 0 refused\n"
    told = consumed(operated, chat_id, 4)
    assert sum(": duplicate" in line for line in told) == 2
    refused = minichat(operated, "outbox", "republish", "--since", "yesterday")
    assert (refused.returncode, "'yesterday' is no moment" in refused.stderr) == (2, True)


def test_a_tenant_is_compared_by_its_name_and_one_that_is_not_there_is_no_all_clear(operated: Stack) -> None:
    with operated.user("compared", "ann") as user:
        user.send(user.new_chat(), "[[say:one]]")
    by_name, by_id, of_nobody = (
        minichat(operated, "reconcile", "--tenant", tenant)
        for tenant in ("compared", operated.ids("compared", "ann")[0], "comparde")
    )
    assert by_name.stdout.startswith("1 turns")
    assert by_id.stdout == by_name.stdout
    assert (of_nobody.returncode, "nothing was compared" in of_nobody.stderr) == (2, True)


def test_a_dead_letter_is_shown_with_its_reason_and_sent_again(operated: Stack) -> None:
    said = operated.about["environment"]
    client = boto3.client("sqs", endpoint_url=said["MINICHAT_QUEUES__ENDPOINT"], region_name="us-east-1")
    url = json.loads(said["MINICHAT_QUEUES__URLS"])["audit"]
    client.send_message(QueueUrl=url, MessageBody="tea?")
    deadline = time.monotonic() + PATIENCE
    while "tea?" not in minichat(operated, "dlq", "show", "audit", "--whole").stdout:
        assert time.monotonic() < deadline
    line = next(line for line in minichat(operated, "dlq", "list").stdout.splitlines() if line.startswith("audit "))
    assert line.split() == ["audit", "0", "0", "1", "0"]
    assert "not JSON" in minichat(operated, "dlq", "show", "audit").stdout
    assert minichat(operated, "dlq", "redrive", "audit", "--dry-run").stdout.endswith("1 would be sent to audit\n")
    assert minichat(operated, "dlq", "redrive", "audit").stdout.endswith("1 sent to audit\n")
    deadline = time.monotonic() + PATIENCE
    while "tea?" not in minichat(operated, "dlq", "show", "audit", "--whole").stdout:  # it is as bad as it was
        assert time.monotonic() < deadline
    refused = minichat(operated, "dlq", "show", "tea")
    assert (refused.returncode, "[queue_not_found]" in refused.stderr) == (2, True)


def test_what_is_not_cleaned_up_is_listed_until_it_is(operated: Stack) -> None:
    with operated.user() as user:
        user.http.delete(f"/chats/{user.new_chat(title='A chat')}").raise_for_status()
    deadline = time.monotonic() + PATIENCE
    while (told := minichat(operated, "cleanup", "list", "--hours", "0")).returncode:
        assert "chat" in told.stdout, told.stderr
        assert time.monotonic() < deadline, told.stdout
    assert told.stdout == "Nothing is left.\n"
    assert json.loads(minichat(operated, "cleanup", "list", "--hours", "0", "--json").stdout) == []
    assert minichat(operated, "cleanup", "again").stdout == "0 sent to their cleanup again\n"


def test_after_all_that_everything_agrees(operated: Stack) -> None:
    with operated.user() as user:
        user.send(user.new_chat(title="A chat"), "hello")
    result = minichat(operated, "reconcile")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith(" 0 differences\n")


def test_without_a_running_stack_a_command_says_how_to_start_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "minichat.cli.main", "reconcile", "--state", str(tmp_path / "nowhere")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 2
    assert "minichat dev" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_that_reaches_no_table_says_what_to_do() -> None:
    nowhere = {"MINICHAT_STORE__ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    said = subprocess.run(
        [sys.executable, "-m", "minichat.cli.main", "turns", "running"],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert said.returncode == 2
    assert "minichat doctor" in said.stderr
    assert "--local" in said.stderr
