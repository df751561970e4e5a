"""Engines and a running stack, started once; ministack is required, the others take part where they are installed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from minichat.local import limits, tables
from minichat.local.engine import Engine
from minichat.local.process import Child, free_port
from minichat.rate_settings import RateSettings
from minichat.settings import Store, current
from minichat.storage import objects
from minichat.storage.items import connect
from tests.support.http.client import Stack, StartedStack, User
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[1]

# The gate judges a change by the same examples each time; everybody else, and the long runs, look for new ones.
# How long one takes says how busy the machine is, and nothing of the example.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("gate", settings.get_profile("search"), derandomize=True)
settings.load_profile("gate" if os.environ.get("CI") else "search")

os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
# A user of the tests is as fast as the tests are; those of rates set their own.
for _rate in RateSettings.model_fields:
    os.environ.setdefault(f"MINICHAT_RATES__{_rate.upper()}", "0")
limits.install()


@pytest.fixture(autouse=True)
def refused_by_aws() -> Iterator[list[str]]:
    """What AWS would have refused of the test's calls, and the engine not: nothing, or the test takes it out."""
    limits.broken.clear()
    yield limits.broken
    assert limits.broken == []


@pytest.fixture(scope="session", autouse=True)
def named_bucket() -> Iterator[None]:
    """A form is signed without asking anybody: whoever announces a file here needs a bucket's name, not a bucket.

    For all tests at once: threads that race would take a patch of their own off in another order than they put it on.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "_bucket", lambda: current().attachments.bucket or "files-of-tests")
        yield


@pytest.fixture(scope="session")
def state_folder() -> Iterator[Path]:
    """A folder for keys and logs of this session's processes."""
    folder = Path(tempfile.mkdtemp(prefix="minichat-tests-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def engine(state_folder: Path) -> Iterator[str]:
    """The endpoint of a DynamoDB-compatible engine that is atomic under threads: a new one, or the one named."""
    yield from _engine(os.environ.get("TEST_ENGINE", "ministack"), state_folder)


@pytest.fixture(scope="session", params=["ministack", "dynoxide", "dynamodb-local"])
def any_engine(request: pytest.FixtureRequest, state_folder: Path) -> Iterator[str]:
    """The same test on each engine that is installed here."""
    kind = str(request.param)
    installed = (ROOT / ".tools" / kind).exists()
    if not installed and kind != "ministack":
        pytest.skip(f"{kind} is not installed (`make tools` says why)")
    yield from _engine(kind, state_folder)


def _engine(kind: str, state_folder: Path) -> Iterator[str]:
    started = Engine(ROOT, kind, state_folder / "logs")
    yield started.endpoint
    if started.child is not None:
        started.child.stop()


@pytest.fixture
def store(engine: str) -> Store:
    """Fresh tables on the engine, with the storage layer connected to them."""
    return fresh_tables(engine)


def fresh_tables(endpoint: str) -> Store:
    """Creates a pair of tables that no other test uses and connects the storage layer to them."""
    name = uuid4().hex[:12]
    made = Store(
        conversation_table=f"conversations-{name}", outbox_table=f"outbox-{name}", endpoint=endpoint, max_connections=64
    )
    tables.create(ROOT, made)
    connect(made)
    return made


@pytest.fixture(scope="session")
def stack(state_folder: Path) -> Iterator[Stack]:
    """`minichat dev`, running, as a developer would start it; or the one named, with a server in this process."""
    if named := os.environ.get("TEST_STACK"):
        # The app of all routes takes a second to load, which tests without a server need not wait for.
        from tests.mutants.served_here import served_here  # noqa: PLC0415

        with served_here(Path(named)) as here:
            yield here
        return
    with running_stack(state_folder / "stack") as started:
        yield started


def of_servers(about: dict[str, Any], state: Path) -> dict[str, str]:
    """The environment of another server of a stack: same tables, same provider, same issuer."""
    return {
        **about["environment"],
        "MINICHAT_AUTH__JWKS": str(state / "jwks.json"),
        "MINICHAT_CURSOR_SECRET": (state / "cursor-secret").read_text(),
    }


class another_server:
    """A second server process of a running stack, at another port."""

    def __init__(self, stack: Stack, **environment: str) -> None:
        self._stack = stack
        self._environment = of_servers(stack.about, stack.state) | environment

    def __enter__(self) -> "another_server":
        port = free_port()
        command = [sys.executable, "-m", "minichat.local.server", "--port", str(port)]
        self.child = Child("the second server", command, self._stack.state / "logs", self._environment)
        self.base_url = f"http://127.0.0.1:{port}/mini-chat/v1"
        self.child.wait_until_it_answers(f"{self.base_url}/health")
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()

    def user(self, tenant: str, user: str) -> User:
        """A user of the stack, at this server."""
        return User(self.base_url, self._stack.token(tenant, user))


def patient(stack: Stack) -> dict[str, str]:
    """What has another server of a stack wait for a silent provider for as long as a busy machine takes."""
    waits = {"timeouts": {"idle_seconds": 600, "total_seconds": 900}}
    entry = {"base_url": stack.about["provider_url"], "allow_insecure": True, **waits}
    return {"MINICHAT_PROVIDERS": json.dumps({"openai": entry})}


@pytest.fixture
def user(stack: Stack) -> Iterator[User]:
    """A user of the stack that no other test is."""
    with stack.user() as one:
        yield one


class running_stack:
    """`minichat dev` with more arguments, for the time of a `with`."""

    def __init__(self, state: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._state = state
        self._command = [sys.executable, "-m", "minichat.cli.main", "dev", "--port", "0", "--state", str(state)]
        self._command += arguments
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> StartedStack:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        deadline = time.monotonic() + PATIENCE
        for line in self._process.stdout:
            said.append(line)
            if "Ctrl-C" in line or time.monotonic() > deadline:
                break
        if self._process.poll() is not None:
            pytest.fail("".join(said))
        about = json.loads((self._state / "dev.json").read_text())
        return StartedStack(about, self._state, self._process, "".join(said))

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        if raised is None:
            logs = (log.read_text(errors="replace") for log in (self._state / "logs").glob("*.log"))
            assert [line for log in logs for line in log.splitlines() if limits.REFUSED in line] == []


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on the loop that the product runs on."""
    return "asyncio"
