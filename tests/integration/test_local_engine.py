"""Engines as child processes: each starts, keeps what it was asked to keep, and says what is missing."""

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from minichat.local import engine as engine_module
from minichat.local import tables
from minichat.local.engine import KINDS, Engine, EngineMissing
from minichat.settings import Store
from tests.conftest import ROOT


def _skip_unless_installed(kind: str) -> None:
    if kind != "ministack" and not (ROOT / ".tools" / kind).exists():
        pytest.skip(f"{kind} is not installed (`make tools` says why)")


def _started(kind: str, state: Path) -> tuple[Engine, Store]:
    engine = Engine(ROOT, kind, state / "logs", data=state)
    return engine, Store(endpoint=engine.endpoint)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_items_outlive_a_stopped_engine(tmp_path: Path, kind: str) -> None:
    _skip_unless_installed(kind)
    item: dict[str, Any] = {
        "pk": {"S": "chat"},
        "sk": {"S": "HEAD"},
        "title": {"S": "kept"},
        "part": {"B": b"\xf0\x9f\x98\x80"},
    }
    found = []
    for visit in ("first", "second"):
        engine, store = _started(kind, tmp_path)
        assert engine.child is not None
        try:
            tables.create(ROOT, store)
            client = boto3.client("dynamodb", endpoint_url=store.endpoint, region_name=store.region)
            if visit == "first":
                client.put_item(TableName=store.conversation_table, Item=item)
            key = {"pk": item["pk"], "sk": item["sk"]}
            found.append(client.get_item(TableName=store.conversation_table, Key=key)["Item"])
        finally:
            engine.child.stop()
    assert found == [item, item]


def test_an_engine_without_a_folder_forgets(tmp_path: Path) -> None:
    for _ in range(2):
        engine = Engine(ROOT, "ministack", tmp_path / "logs")
        assert engine.child is not None
        try:
            client = boto3.client("dynamodb", endpoint_url=engine.endpoint, region_name="us-east-1")
            assert client.list_tables()["TableNames"] == []
            tables.create(ROOT, Store(endpoint=engine.endpoint))
        finally:
            engine.child.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_is_not_installed_names_what_installs_it(tmp_path: Path, kind: str) -> None:
    with pytest.raises(EngineMissing, match="make tools"):
        Engine(tmp_path, kind, tmp_path / "logs")


def test_dynamodb_local_without_java_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".tools" / "dynamodb-local").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match="Java 17"):
        Engine(tmp_path, "dynamodb-local", tmp_path / "logs")


def test_a_process_that_a_signal_meets_while_it_is_made_is_stopped_with_the_others(tmp_path: Path) -> None:
    # In a process of its own: what stops all its children must not meet the engines of this one.
    script = f"""
import signal, subprocess
from pathlib import Path
from minichat.local.process import Child, stop_all

made = []

class Interrupted(subprocess.Popen):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        made.append(self)
        signal.raise_signal(signal.SIGTERM)

def stop(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, stop)
subprocess.Popen = Interrupted
try:
    Child("a sleeper", ["sleep", "60"], Path({str(tmp_path)!r}))
except KeyboardInterrupt:
    stop_all()
print([process.returncode for process in made])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout == f"[{-signal.SIGTERM}]\n"


def test_an_engine_given_by_url_is_nobodys_child(any_engine: str, tmp_path: Path) -> None:
    engine = Engine(ROOT, f"{any_engine}/", tmp_path / "logs")
    assert (engine.endpoint, engine.child) == (any_engine, None)


@pytest.mark.parametrize(
    "url",
    ["http://", "http://127.0.0.1:1", "http://127.0.0.1:70000", "http://127.0.0.1:x", "http://[::1", "http://a b"],
)
def test_a_url_where_nothing_is_names_itself(tmp_path: Path, url: str) -> None:
    with pytest.raises(EngineMissing, match="No engine answers at http:") as caught:
        Engine(ROOT, url, tmp_path / "logs")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n<html>\nWelcome</html>", "is not DynamoDB"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nno such page\n", "is not DynamoDB"),
        (b"HTTP/1.1 200 OK\r\n\r\n[1]", "is not DynamoDB"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status": "up"}', "is not DynamoDB"),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe", "is not DynamoDB"),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "is not DynamoDB"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH-2.0-OpenSSH_9.6"),
        (b"", "No engine answers"),
        (None, "timed out"),
    ],
)
def test_what_is_not_dynamodb_is_told_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, said: str
) -> None:
    monkeypatch.setattr(engine_module, "PROBE_SECONDS", 5 if answer is not None else 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as other:
        other.submit(_answer_once, listening, answer)
        with pytest.raises(EngineMissing, match=said) as caught:
            Engine(ROOT, f"http://127.0.0.1:{listening.getsockname()[1]}", tmp_path / "logs")
    assert len(str(caught.value).splitlines()) == 1


def _answer_once(listening: socket.socket, answer: bytes | None) -> None:
    connection, _ = listening.accept()
    with connection:
        received = b""
        while not received.endswith(b"\r\n\r\n{}"):
            received += connection.recv(65536)
        if answer is None:
            connection.recv(1)  # until the other side has had enough
        else:
            connection.sendall(answer)
