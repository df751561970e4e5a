"""Engines as child processes: each starts, keeps what it was asked to keep, and says what is missing."""

import os
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
from minichat.local.streams import Stream
from minichat.settings import Store
from tests.conftest import ROOT
from tests.support.storage.killed_engine import client, killed_while_written


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_engine_loses_less_than_a_second_of_writes(tmp_path: Path, kind: str) -> None:
    _skip_unless_installed(kind)
    found = killed_while_written(kind, tmp_path, lambda seconds, writes: seconds > 1.5 and writes > 20)
    print(kind, found)
    assert found.halves == 0
    assert found.is_tail
    assert found.seconds <= 1 + found.longest_pause  # where writes take that long, so do snapshots


def test_streams_queues_and_files_are_there_after_a_kill(tmp_path: Path) -> None:
    engine, store = _started("ministack", tmp_path)
    assert engine.child is not None
    try:
        tables.create(ROOT, store)
        s3, sqs = client(engine, "s3"), client(engine, "sqs")
        s3.create_bucket(Bucket="files")
        s3.put_object(Bucket="files", Key="a", Body=b"\x00\xff")
        for number in ("1", "2"):
            item = {"pk": {"S": "chat"}, "sk": {"S": number}}
            client(engine).put_item(TableName=store.outbox_table, Item=item)
        before = _records(engine, store)
        mail = sqs.create_queue(QueueName="mail", Attributes={"VisibilityTimeout": "3600"})["QueueUrl"]
        sqs.send_message(QueueUrl=mail, MessageBody="received, and never deleted")
        assert len(sqs.receive_message(QueueUrl=mail)["Messages"]) == 1
        sqs.send_message(QueueUrl=mail, MessageBody="the last to be written")
        snapshot = tmp_path / "ministack" / "snapshot.json"
        while not snapshot.exists() or "the last to be written" not in snapshot.read_text():
            engine.child.check()
    finally:
        os.kill(engine.child.pid, signal.SIGKILL)
        engine.child.stop()
    engine, _ = _started("ministack", tmp_path)
    assert engine.child is not None
    try:
        s3, sqs = client(engine, "s3"), client(engine, "sqs")
        assert s3.get_object(Bucket="files", Key="a")["Body"].read() == b"\x00\xff"
        mail = sqs.create_queue(QueueName="mail", Attributes={"VisibilityTimeout": "3600"})["QueueUrl"]
        received = sqs.receive_message(QueueUrl=mail, MaxNumberOfMessages=10)["Messages"]
        assert [one["Body"] for one in received] == ["received, and never deleted", "the last to be written"]
        assert _records(engine, store) == before
        assert len(before) == 2
        client(engine).put_item(TableName=store.outbox_table, Item={"pk": {"S": "chat"}, "sk": {"S": "3"}})
        numbers = [record["dynamodb"]["SequenceNumber"] for record in _records(engine, store)]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == 3
    finally:
        engine.child.stop()


def _records(engine: Engine, store: Store) -> list[dict[str, Any]]:
    arn = client(engine).describe_table(TableName=store.outbox_table)["Table"]["LatestStreamArn"]
    stream = Stream(client(engine, "dynamodbstreams"), arn)
    (shard,) = stream.shards()
    where = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator = stream.client.get_shard_iterator(**where)["ShardIterator"]
    records: list[dict[str, Any]] = stream.client.get_records(ShardIterator=iterator)["Records"]
    return records


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
