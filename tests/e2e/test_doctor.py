"""`minichat doctor`: what is wrong is named with what to do, whatever else is wrong, and no secret is ever told."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from minichat.cli.findings import PATIENCE_SECONDS
from minichat.local import tables
from minichat.local.process import free_port
from minichat.moment import now
from minichat.services.policy_in_force import SHIPPED_POLICY
from minichat.settings import Store
from tests.conftest import ROOT, running_stack
from tests.support.events.queue_access import QueueAccess
from tests.support.http.client import Stack
from tests.support.patience import PATIENCE

Told = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that nothing else uses, so that all is well with it."""
    with running_stack(tmp_path_factory.mktemp("examined")) as stack:
        yield stack


def doctor(state: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, "-m", "minichat.cli.main", "doctor", "--state", str(state), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.stderr == ""
    return run


def findings(stack: Stack, **environment: str) -> Told:
    """What each check found; whatever is wrong, each is told, and the exit code says whether one failed."""
    run = doctor(stack.state, "--json", **environment)
    told = json.loads(run.stdout)
    found: Told = {one.pop("check"): one for one in told["checks"]}
    assert run.returncode == (1 if told["failed"] else 0)
    assert told["failed"] == sum(one["result"] == "failed" for one in found.values())
    assert all(bool(one["advice"]) == (one["result"] != "ok") for one in found.values())
    return found


def troubles(found: Told) -> dict[str, str]:
    return {name: one["result"] for name, one in found.items() if one["result"] != "ok"}


def client(stack: Stack, service: Any) -> Any:
    return boto3.client(service, endpoint_url=stack.about["engine_url"], region_name="us-east-1")


def test_a_stack_that_runs_is_well(examined: Stack) -> None:
    run = doctor(examined.state)
    *lines, sum_up = run.stdout.splitlines()
    assert (run.returncode, {line.split()[0] for line in lines}) == (0, {"ok"})
    assert sum_up == f"{len(lines)} ok, 0 warnings, 0 failed"
    for checked in ("settings", "provider openai", "minichat-outbox", "dead letters of usage", "key set", "policy"):
        assert checked in run.stdout


def test_each_wrong_setting_is_named_and_everything_else_is_still_checked(examined: Stack, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("quota: {retention_days: 3}\nstreaming: {deadline_seconds: 60}")
    wrong = {
        "MINICHAT_CONFIG": str(config),
        "MINICHAT_STREAMING__PING_INTERVAL_SECONDS": "1",
        "MINICHAT_STREAMIN__DEADLINE_SECONDS": "60",
        "MINICHAT_AUTH__LEEWAY_SECONDS": "a while",
        "MINICHAT_CLEANUP": "{not json",
    }
    found = findings(examined, **wrong)
    assert troubles(found) == {"settings": "failed"}
    assert len(found) == len(findings(examined))
    for key in ("retention_days", "ping_interval_seconds", "streamin", "leeway_seconds", "MINICHAT_CLEANUP"):
        assert key in found["settings"]["detail"]
    assert len(doctor(examined.state, **wrong).stdout.splitlines()) == len(found) + 1


def test_a_missing_table_is_named_with_the_setting_that_names_it(examined: Stack) -> None:
    found = findings(examined, MINICHAT_STORE__OUTBOX_TABLE="nowhere")
    assert troubles(found) == {"table nowhere": "failed"}
    assert "MINICHAT_STORE__OUTBOX_TABLE" in found["table nowhere"]["advice"]


def test_a_table_that_is_not_as_described_is_told_apart(examined: Stack) -> None:
    name = uuid4().hex
    client(examined, "dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    outbox = findings(examined, MINICHAT_STORE__OUTBOX_TABLE=name)[f"table {name}"]
    assert outbox["result"] == "failed"
    assert outbox["detail"] == "its key is not the described one; its stream is off; time to live by expires_at is off"
    conversations = findings(examined, MINICHAT_STORE__CONVERSATION_TABLE=name)[f"table {name}"]
    assert "has no index ByOwner; has no index Running" in conversations["detail"]


def test_providers_that_are_not_there_or_have_no_key_are_named(examined: Stack) -> None:
    there = examined.about["provider_url"]
    providers = {
        "openai": {"base_url": there, "allow_insecure": True, "auth": {"secret": {"name": "A_KEY_OF_MINE"}}},
        "gone": {"base_url": f"http://127.0.0.1:{free_port()}", "allow_insecure": True},
        "plain": {"base_url": there.replace("http:", "https:"), "allow_insecure": True},
        "inside": {"base_url": there.replace("http:", "https:")},
        "unknown": {"base_url": "https://nowhere.invalid"},
    }
    found = findings(examined, MINICHAT_PROVIDERS=json.dumps(providers))
    assert troubles(found) == {
        "provider openai: secret": "warning",  # it may well be known to the stack
        "provider gone: reachable": "failed",
        "provider plain: reachable": "failed",
        "provider inside: reachable": "failed",
        "provider unknown: reachable": "failed",
    }
    assert "A_KEY_OF_MINE" in found["provider openai: secret"]["detail"]
    assert "speaks no TLS" in found["provider plain: reachable"]["detail"]
    assert "private address" in found["provider inside: reachable"]["detail"]
    found = findings(examined, MINICHAT_PROVIDERS=json.dumps(providers), A_KEY_OF_MINE="sk-very-secret")
    assert found["provider openai: secret"]["result"] == "ok"
    without = findings(examined, MINICHAT_PROVIDERS=json.dumps({"plain": providers["openai"]}))
    assert "there is no provider 'openai'" in without["policy"]["detail"]


def test_a_provider_whose_certificate_nobody_vouches_for_is_named(examined: Stack, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_own_certificate(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        provider = {"base_url": f"https://localhost:{server.server_port}", "allow_insecure": True}
        found = findings(examined, MINICHAT_PROVIDERS=json.dumps({"openai": provider}))
        server.shutdown()
        serving.join()
    assert troubles(found) == {"provider openai: reachable": "failed"}
    assert "certificate" in found["provider openai: reachable"]["detail"]


def _own_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now(), now() + timedelta(days=1))
    file = folder / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM) + private)
    return file


def test_no_secret_is_told(examined: Stack, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("cursor_secret: [hush-1\nprovider: {")
    provider = {"base_url": f"http://me:hush-2@127.0.0.1:{free_port()}", "allow_insecure": True}
    provider["auth"] = {"secret": {"name": "A_KEY_OF_MINE"}}
    said = [
        doctor(
            examined.state,
            *arguments,
            MINICHAT_CONFIG=str(config),
            MINICHAT_PROVIDERS=json.dumps({"openai": provider}),
            MINICHAT_CURSOR_SECRET='["hush-3"]',
            MINICHAT_AUDIT='{"content": "hush-4"}',
            MINICHAT_AUTH__JWKS="http://me:hush-5@127.0.0.1:9/keys?token=hush-6",
            A_KEY_OF_MINE="hush-7",
        ).stdout
        for arguments in ((), ("--json",))
    ]
    for text in said:
        assert "hush" not in text
        assert all(named in text for named in ("cursor_secret", "config.yaml", "audit.content", "127.0.0.1:9/keys"))


@pytest.fixture
def own_tables(examined: Stack) -> dict[str, str]:
    """Empty tables, as the variables that name them."""
    name = uuid4().hex
    store = Store(conversation_table=name, outbox_table=f"{name}-outbox", endpoint=examined.about["engine_url"])
    tables.create(ROOT, store)
    return {"MINICHAT_STORE__CONVERSATION_TABLE": name, "MINICHAT_STORE__OUTBOX_TABLE": f"{name}-outbox"}


def test_where_no_policy_is_published_the_first_one_is_checked(
    examined: Stack, own_tables: dict[str, str], tmp_path: Path
) -> None:
    found = findings(examined, **own_tables)
    assert troubles(found) == {"policy": "warning"}
    assert "none is published" in found["policy"]["detail"]
    empty = tmp_path / "policy.json"
    empty.write_text("{}")
    found = findings(examined, **own_tables, MINICHAT_POLICY_FILE=str(empty))
    assert troubles(found) == {"policy": "failed"}
    assert "model_catalog" in found["policy"]["detail"]


def test_a_policy_in_force_that_serves_nobody_is_a_failure(
    examined: Stack, own_tables: dict[str, str], tmp_path: Path
) -> None:
    policy = json.loads(SHIPPED_POLICY.read_text())
    for model in policy["model_catalog"]:
        model["enabled"] = False
        model["preference"] = {}
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    publish = ["policy", "publish", str(file), "--state", str(examined.state)]
    command = [sys.executable, "-m", "minichat.cli.main", *publish]
    subprocess.run(command, env=os.environ | own_tables, check=True, capture_output=True, timeout=PATIENCE)
    found = findings(examined, **own_tables)
    assert troubles(found) == {"policy": "failed"}
    assert "enables no model" in found["policy"]["detail"]
    broken: dict[str, Any] = {"document": {"B": zlib.compress(b"{}")[:-3]}}
    table, engine = own_tables["MINICHAT_STORE__CONVERSATION_TABLE"], client(examined, "dynamodb")
    for item in engine.scan(TableName=table)["Items"]:
        if "document" in item:
            engine.put_item(TableName=table, Item={**item, **broken})
    assert "cannot be understood" in findings(examined, **own_tables)["policy"]["detail"]


def test_a_dead_letter_is_a_warning_that_names_the_command(examined: Stack) -> None:
    queues = QueueAccess.made_at(examined.about["engine_url"], "us-east-1")
    dead_letters = queues.settings.dead_letters["usage"]
    queues.client.send_message(QueueUrl=dead_letters, MessageBody="{}")
    queues.send("audit", "{}")
    found = findings(examined, **queues.environment)
    assert troubles(found) == {"dead letters of usage": "warning"}
    assert found["dead letters of usage"]["detail"] == "1 waiting"
    assert "minichat dlq show usage" in found["dead letters of usage"]["advice"]
    assert found["queue audit"]["detail"] == "1 waiting"


def test_a_queue_that_is_not_there_and_one_that_is_not_named_are_failures(examined: Stack) -> None:
    urls = json.loads(examined.about["environment"]["MINICHAT_QUEUES__URLS"])
    urls["usage"] += "-gone"
    del urls["audit"]
    found = findings(examined, MINICHAT_QUEUES__URLS=json.dumps(urls))
    assert troubles(found) == {"queue usage": "failed", "queue audit": "failed"}
    assert found["queue usage"]["detail"] == "is not there"
    assert troubles(findings(examined, MINICHAT_QUEUES__URLS="{}")) == {"queues": "failed"}


def test_keys_and_audit_sink_are_looked_at(examined: Stack, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no keys")
    found = findings(examined, MINICHAT_AUTH__JWKS=str(file), MINICHAT_AUDIT__SINK=str(file / "inside"))
    assert troubles(found) == {"key set": "failed", "audit sink": "failed"}
    found = findings(examined, MINICHAT_AUDIT__SINK=f"s3://{uuid4().hex}/prefix")
    assert troubles(found) == {"audit sink": "failed"}
    bucket = uuid4().hex
    client(examined, "s3").create_bucket(Bucket=bucket)
    assert troubles(findings(examined, MINICHAT_AUDIT__SINK=f"s3://{bucket}/prefix")) == {}


def test_the_bucket_of_uploads_is_looked_at_and_named_with_its_setting(examined: Stack) -> None:
    assert findings(examined)["uploads"]["detail"] == "bucket minichat-uploads is there"
    found = findings(examined, MINICHAT_ATTACHMENTS__BUCKET=uuid4().hex)
    assert troubles(found) == {"uploads": "failed"}
    assert "MINICHAT_ATTACHMENTS__BUCKET" in found["uploads"]["advice"]
    unnamed = findings(examined, MINICHAT_ATTACHMENTS__BUCKET="")["uploads"]
    assert (unnamed["result"], unnamed["detail"]) == ("failed", "no bucket is named: chats can be given no files")
    gone = f"http://127.0.0.1:{free_port()}"
    unreached = findings(examined, MINICHAT_ATTACHMENTS__ENDPOINT=gone)["uploads"]
    assert unreached["result"] == "failed"
    assert "MINICHAT_ATTACHMENTS__ENDPOINT" in unreached["advice"]


def test_what_never_answers_does_not_keep_the_others_waiting(examined: Stack) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = findings(examined, MINICHAT_STORE__ENDPOINT=url, MINICHAT_QUEUES__ENDPOINT=url)
    assert {name.split()[0] for name in troubles(found)} == {"table", "clock", "queue", "dead", "policy"}
    assert f"no answer in {PATIENCE_SECONDS} s" in {one["detail"] for one in found.values()}
    assert all(found[name]["result"] == "ok" for name in ("settings", "key set", "audit sink"))


@pytest.mark.parametrize(("off", "result"), [(0, "ok"), (100, "warning"), (1000, "failed")])
def test_a_clock_that_is_off_is_told_by_how_much(examined: Stack, off: int, result: str) -> None:
    class Store(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(400)  # its Date is what counts

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() - off)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        clock = findings(examined, MINICHAT_STORE__ENDPOINT=f"http://127.0.0.1:{server.server_port}")["clock"]
        server.shutdown()
        serving.join()
    assert clock["result"] == result
    assert off - 1 <= int(clock["detail"].split()[0]) <= off + 5


def test_a_stack_that_has_ended_is_named_first(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        pass
    found = findings(stack)
    assert (next(iter(found)), found["local stack"]["result"]) == ("local stack", "failed")
    assert {one["result"] for name, one in found.items() if name.startswith(("table", "queue"))} == {"failed"}


def test_a_stack_that_never_ran_is_one_failure(tmp_path: Path) -> None:
    run = doctor(tmp_path)
    assert (run.returncode, run.stdout.splitlines()[-1]) == (1, "0 ok, 0 warnings, 1 failed")
    assert "minichat dev" in run.stdout
