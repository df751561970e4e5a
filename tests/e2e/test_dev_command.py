"""`minichat dev` and `minichat token`, as a developer uses them."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
import yaml

from minichat.services.policy_in_force import SHIPPED_POLICY
from tests.conftest import running_stack
from tests.support.http.client import User
from tests.support.patience import PATIENCE

MINICHAT = [sys.executable, "-m", "minichat.cli.main"]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter when it goes while it is read
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds; its own work paces the loop, and pytest's timeout bounds it."""
    while not condition():
        pass


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def _engine_that_lists_tables(before_more: Callable[[], None]) -> Iterator[str]:
    """The URL of an engine that has no tables, and that refuses, after a call of `before_more`, to do anything else."""

    class Engine(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if self.headers["x-amz-target"].endswith(".ListTables"):
                status, body = 200, b'{"TableNames": []}'
            else:
                before_more()
                status, body = 400, b'{"__type": "AccessDeniedException", "message": "not for you"}'
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_the_printed_line_streams_a_first_answer(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        line = next(line for line in stack.said.splitlines() if line.strip().startswith("curl -N"))
        run = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True)
        names = [text.removeprefix("event: ") for text in run.stdout.splitlines() if text.startswith("event: ")]
        assert (names[0], set(names[1:-1]), names[-1]) == ("stream_started", {"delta"}, "done")
        assert stack.base_url in stack.said
        assert stack.about["token"] in stack.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    with running_stack(tmp_path) as stack:
        pids = list(stack.about["pids"].values())
        assert len(pids) == 6
        assert all(_alive(pid) for pid in pids)
        stack.process.send_signal(number)
        assert stack.process.wait(PATIENCE) == 0
        assert not any(_alive(pid) for pid in pids)


def test_a_stop_in_the_middle_of_a_stream_ends_its_turn_as_interrupted(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack, stack.user("acme", "ann") as user:
        chat_id = user.new_chat()
        body = {"content": "[[words:3]][[hold:never]]"}
        with user.streaming("POST", f"/chats/{chat_id}/messages:stream", json=body) as (_, events):
            turn = next(events).data["request_id"]
            assert next(events).name == "delta"
            stack.process.send_signal(signal.SIGINT)
            assert stack.process.wait(PATIENCE) == 0
    with running_stack(tmp_path) as stack, stack.user("acme", "ann") as user:
        status = user.turn(chat_id, turn).json()
        assert status["state"] == "done"
        assert status["completion_signal"] == {"kind": "incomplete", "reason": "interrupted"}
        assert [message["content"] for message in user.messages(chat_id)][1].strip() == "word1"
        assert user.edit(chat_id, turn, "[[say:again]]").text == "again"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_start_whose_first_process_is_just_there(tmp_path: Path, number: signal.Signals) -> None:
    command = [*MINICHAT, "dev", "--port", "0", "--state", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        _wait_until(lambda: bool(_children(process.pid)))
        children = _children(process.pid)
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, "")
    assert not any(_alive(pid) for pid in children)
    assert not (tmp_path / "dev.json").exists()


def test_a_signal_ends_a_start_that_waits_for_its_engine(tmp_path: Path) -> None:
    asked, released = threading.Event(), threading.Event()

    def keep_waiting() -> None:
        asked.set()
        released.wait(PATIENCE)

    with _engine_that_lists_tables(before_more=keep_waiting) as url:
        command = [*MINICHAT, "dev", "--port", "0", "--state", str(tmp_path), "--engine", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            if not asked.wait(PATIENCE):
                process.kill()
            children = _children(process.pid)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=PATIENCE)
        released.set()
    assert (process.returncode, said) == (0, "")
    assert children
    assert not any(_alive(pid) for pid in children)


def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        pids = list(stack.about["pids"].values())
        stack.process.kill()
        stack.process.wait(PATIENCE)
        _wait_until(lambda: not any(_alive(pid) for pid in pids))


def test_a_child_that_dies_stops_the_stack_and_is_named(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        os.kill(stack.about["pids"]["the scripted provider"], signal.SIGKILL)
        assert stack.process.wait(PATIENCE) == 2
        assert stack.process.stdout is not None
        assert "the scripted provider was killed by SIGKILL" in stack.process.stdout.read()
        assert not any(_alive(pid) for pid in stack.about["pids"].values())


@pytest.mark.parametrize("engine", ["ministack", "dynoxide"])
def test_state_is_kept_where_asked(tmp_path: Path, engine: str) -> None:
    if engine != "ministack" and not (Path(__file__).parents[2] / ".tools" / engine).exists():
        pytest.skip(f"{engine} is not installed (`make tools` says why)")
    with running_stack(tmp_path, "--engine", engine) as stack, stack.user("acme", "ann") as user:
        chat_id = user.new_chat(title="kept")
        first = user.http.get("/chats", params={"limit": 1}).json()
        user.send(chat_id, "[[say:remember]]")
        token = stack.about["token"]
    with running_stack(tmp_path, "--engine", engine) as stack, stack.user("acme", "ann") as user:
        assert user.chat(chat_id)["title"] == "kept"
        assert user.messages(chat_id)[1]["content"] == "remember"
        assert first["items"][0]["id"] == chat_id
        with User(stack.base_url, token) as developer:
            assert developer.http.get("/models").status_code == 200


def test_an_engine_given_by_url_is_used_and_left_running(tmp_path: Path, engine: str) -> None:
    with running_stack(tmp_path, "--engine", engine) as stack, stack.user() as user:
        assert stack.about["engine_url"] == engine
        assert not any("engine" in name for name in stack.about["pids"])
        assert "the queues" in stack.about["pids"]  # an engine of tables need not have any
        assert user.send(user.new_chat(), "[[say:hi]]").text == "hi"
    assert httpx2.get(engine, trust_env=False).status_code < 500


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(tmp_path: Path) -> None:
    nowhere = dict.fromkeys(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"], "http://127.0.0.1:9")
    others = {"no_proxy": "", "NO_PROXY": "corp.example"}
    with running_stack(tmp_path, environment=nowhere | others) as stack, stack.user() as user:
        assert user.send(user.new_chat(), "[[say:hi]]").text == "hi"


def test_tokens_have_the_claims_that_settings_and_environment_ask_for(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    claims = {"tenant_claim": "org", "subject_claim": "uid", "subject_type_claim": "kind", "features_claim": "may"}
    config.write_text(yaml.safe_dump({"auth": {"issuer": "https://id.example", "required_feature": "chat", **claims}}))
    audience = {"MINICHAT_AUTH__AUDIENCE": "ours"}
    with running_stack(tmp_path / "state", "--config", str(config), environment=audience) as stack:
        with User(stack.base_url, stack.about["token"]) as developer:
            assert developer.http.get("/chats").status_code == 200
        command = [*MINICHAT, "token", "--tenant", "acme", "--user", "ann", "--state", str(stack.state)]
        for arguments, variables, status in [
            (["--config", str(config)], audience, 200),
            ([], audience | {"MINICHAT_CONFIG": str(config)}, 200),
            (["--config", str(config)], {}, 401),
            ([], audience, 401),
        ]:
            environment = {**os.environ, **variables}
            run = subprocess.run(
                [*command, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
            )
            with User(stack.base_url, run.stdout.strip()) as user:
                assert user.http.get("/chats").status_code == status


def test_without_auth_requests_are_one_development_users(tmp_path: Path) -> None:
    with running_stack(tmp_path, "--no-auth") as stack, User(stack.base_url, None) as nobody:
        chat_id = nobody.new_chat()
        assert nobody.send(chat_id, "[[say:hi]]").text == "hi"
        bad = nobody.http.get("/chats", headers={"authorization": "Bearer nonsense"})
        assert bad.status_code == 401
        with stack.user() as somebody:
            assert somebody.http.get(f"/chats/{chat_id}").status_code == 404


def test_settings_policy_and_provider_are_taken_from_where_the_flags_say(tmp_path: Path) -> None:
    policy = json.loads(SHIPPED_POLICY.read_text())
    policy["model_catalog"][2]["id"] = "house-model"
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    (tmp_path / "settings.yaml").write_text("url_prefix: /ours\nstreaming:\n  max_output_tokens: 100\n")
    with running_stack(tmp_path / "one") as provider:
        arguments = ["--config", str(tmp_path / "settings.yaml"), "--policy", str(tmp_path / "policy.yaml")]
        arguments += ["--provider-url", str(provider.about["provider_url"])]
        with running_stack(tmp_path / "two", *arguments) as stack, stack.user() as user:
            assert stack.base_url.endswith("/ours/v1")
            assert "the scripted provider" not in stack.about["pids"]
            before = provider.provider_stats()["calls"]
            assert user.send(user.new_chat(model="house-model"), "[[say:ours]]").text == "ours"
            assert provider.provider_stats()["calls"] == before + 1


def test_a_configured_provider_is_used_instead_of_the_scripted_one(tmp_path: Path) -> None:
    with running_stack(tmp_path, environment={"OPENAI_API_KEY": "sk-not-used-here"}) as stack:
        assert "the scripted provider" not in stack.about["pids"]
        assert httpx2.get(f"{stack.base_url}/health").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "oracle"], "--engine: There is no engine 'oracle'"),
        (["--engine", "http://127.0.0.1:1"], "--engine: No engine answers at http://127.0.0.1:1"),
        (["--port", "70000"], "--port: there is no port 70000"),
        (["--port", "-1"], "--port: there is no port -1"),
        (["--host", "192.0.2.1"], "--host"),
        (["--config", "/nowhere.yaml"], "--config: there is no file /nowhere.yaml"),
        (["--policy", "/nowhere.yaml"], "--policy: there is no file /nowhere.yaml"),
        (["--provider-url", "localhost:11434"], "--provider-url: 'localhost:11434' is no URL such as http"),
        (["--state", "/dev/null"], "--state: /dev/null cannot be used"),
    ],
)
def test_what_cannot_work_is_explained_in_a_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    command = [*MINICHAT, "dev", "--port", "0", "--state", str(tmp_path), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("minichat: ")
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_a_policy_that_enables_no_model_is_named_and_the_stack_runs(tmp_path: Path) -> None:
    policy = json.loads(SHIPPED_POLICY.read_text())
    catalog = [model | {"enabled": False} for model in policy["model_catalog"]]
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy | {"model_catalog": catalog}))
    with running_stack(tmp_path / "state", "--policy", str(file)) as stack:
        assert "enables no model: nobody can start a chat" in stack.said
        assert "curl" not in stack.said


def test_a_fresh_start_says_nothing_that_is_not_a_request(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        said = (stack.state / "logs" / "server.log").read_text().splitlines()
    assert {json.loads(line).get("message", "request") for line in said} == {"request"}


def test_an_engine_that_makes_no_tables_is_quoted(tmp_path: Path) -> None:
    with _engine_that_lists_tables(before_more=lambda: None) as url:
        command = [*MINICHAT, "dev", "--port", "0", "--state", str(tmp_path), "--engine", url]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 2
    assert f"No tables can be made at {url}" in run.stderr
    assert "not for you" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_wrong_policy_is_explained_before_anything_starts(tmp_path: Path) -> None:
    policy = json.loads(SHIPPED_POLICY.read_text())
    policy["model_catalog"][0]["input_tokens_credit_multiplier_micro"] = 0
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    command = [*MINICHAT, "dev", "--port", "0", "--state", str(tmp_path / "state"), "--policy", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 2
    assert "model_catalog.0.input_tokens_credit_multiplier_micro" in run.stderr


def test_a_taken_port_is_explained(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [*MINICHAT, "dev", "--port", str(port), "--state", str(tmp_path)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 2
    assert f"Port {port}" in run.stderr
    assert "--port" in run.stderr


def test_a_token_is_printed_alone_and_lasts_as_long_as_asked(tmp_path: Path) -> None:
    command = [*MINICHAT, "token", "--tenant", "acme", "--user", "ann", "--state", str(tmp_path), "--lifetime", "5m"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert run.stdout.count(".") == 2
    assert len(shlex.split(run.stdout)) == 1
    wrong = subprocess.run(
        [*command, "--lifetime", "soon"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert wrong.returncode == 2
    assert "12h" in wrong.stderr


def test_the_issuers_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    subprocess.run([*MINICHAT, "token", "--tenant", "a", "--user", "b", "--state", str(tmp_path)], check=True)
    assert (tmp_path / "issuer-key.pem").stat().st_mode & 0o077 == 0
