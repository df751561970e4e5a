"""Engines that speak DynamoDB on this machine, each started as a child process on a free port."""

import json
import shutil
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from minichat.local.process import CannotStart, Child, free_port

PROBE_SECONDS = 5
_SERVER = "software.amazon.dynamodb.services.local.main.ServerRunner"
_LIST_TABLES = {
    "X-Amz-Target": "DynamoDB_20120810.ListTables",
    "Content-Type": "application/x-amz-json-1.0",
    # Engines read the access key, and do not verify the signature.
    "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, "
    "SignedHeaders=host;x-amz-target, Signature=none",
    "X-Amz-Date": "20260101T000000Z",
}


class EngineMissing(CannotStart):
    """The engine is unknown or not installed, or the URL given for it does not answer like one."""


class Engine:
    """A running engine: its endpoint, and its process unless it was given by URL and is somebody else's to stop."""

    def __init__(self, root: Path, kind: str, logs: Path, data: Path | None = None) -> None:
        """Starts the engine and waits until it answers.

        Raises EngineMissing, with what to do about it; ChildFailed when it does not start.
        """
        self.child: Child | None = None
        if kind.startswith(("http://", "https://")):
            self.endpoint = kind.rstrip("/")
            _probe(self.endpoint)
            return
        tools = root / ".tools"
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        if kind not in _COMMANDS:
            raise EngineMissing(f"--engine: There is no engine {kind!r}: choose {', '.join(KINDS)}, or a URL.")
        command, environment = _COMMANDS[kind](tools, port, data)
        self.child = Child(f"the engine {kind}", command, logs, environment)
        try:
            self.child.wait_until_it_answers(self.endpoint)
        except BaseException:
            self.child.stop()
            raise


def _probe(endpoint: str) -> None:
    """Raises EngineMissing unless DynamoDB, or something that answers like it, is at the endpoint."""
    try:
        body = _answer(Request(endpoint, data=b"{}", headers=_LIST_TABLES))  # noqa: S310  http or https, checked
    except (OSError, HTTPException, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise EngineMissing(f"--engine: No engine answers at {endpoint}: {reason}.") from None
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    # Even a refusal has a type; whether the tables can be made shows when they are.
    if not isinstance(said, dict) or not said.keys() & {"TableNames", "__type"}:
        raise EngineMissing(f"--engine: What answers at {endpoint} is not DynamoDB.")


def _answer(request: Request) -> bytes:
    try:
        with urlopen(request, timeout=PROBE_SECONDS) as response:  # noqa: S310  as above
            body: bytes = response.read()
    except HTTPError as refused:
        body = refused.read()
    return body


Start = tuple[list[str | Path], dict[str, str]]


def _ministack(tools: Path, port: int, data: Path | None) -> Start:
    environment = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "ERROR"}
    programs = tools / "ministack" / "bin"
    plain = _installed(programs / "ministack")
    if data is None:
        return [plain], environment
    environment |= {"PERSIST_STATE": "1", "STATE_DIR": str(data / "ministack")}
    environment |= {"S3_PERSIST": "1", "S3_DATA_DIR": str(data / "ministack" / "s3")}
    return [programs / "python", Path(__file__).with_name("ministack_kept.py")], environment


def _dynoxide(tools: Path, port: int, data: Path | None) -> Start:
    kept = [] if data is None else ["--db-path", str(data / "dynoxide.sqlite")]
    return [_installed(tools / "dynoxide" / "dynoxide"), "--host", "127.0.0.1", "--port", str(port), *kept], {}


def _dynamodb_local(tools: Path, port: int, data: Path | None) -> Start:
    folder = _installed(tools / "dynamodb-local")
    if shutil.which("java") is None:
        raise EngineMissing("DynamoDB Local needs Java 17 or later, and java is not in the PATH.")
    where = ["-inMemory"] if data is None else ["-dbPath", str(data)]
    java: list[str | Path] = ["java", f"-Djava.library.path={folder}", "-cp", f"{folder}/*", _SERVER]
    return [*java, *where, "-sharedDb", "-disableTelemetry", "-port", str(port)], {}


def _installed(path: Path) -> Path:
    if not path.exists():
        raise EngineMissing(f"{path} is not there: run `make tools`.")
    return path


_COMMANDS: dict[str, Callable[[Path, int, Path | None], Start]] = {
    "ministack": _ministack,
    "dynoxide": _dynoxide,
    "dynamodb-local": _dynamodb_local,
}
KINDS = tuple(_COMMANDS)
