"""Engines that speak DynamoDB on this machine, each started as a child process on a free port."""

from collections.abc import Callable
from pathlib import Path

from minichat.local.process import Child, free_port

_SERVER = "software.amazon.dynamodb.services.local.main.ServerRunner"


class EngineMissing(RuntimeError):
    """The engine is not installed, or there is none of that name."""


class Engine:
    """A running engine: its endpoint, and its process unless it was given by URL and is somebody else's to stop."""

    def __init__(self, root: Path, kind: str, logs: Path, data: Path | None = None) -> None:
        """Starts the engine and waits until it answers.

        Raises EngineMissing, with what to do about it; ChildFailed when it does not start.
        """
        self.child: Child | None = None
        if kind.startswith(("http://", "https://")):
            self.endpoint = kind.rstrip("/")
            return
        tools = root / ".tools"
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        if kind not in _COMMANDS:
            raise EngineMissing(f"There is no engine {kind!r}: choose {', '.join(KINDS)}, or a URL.")
        command, environment = _COMMANDS[kind](tools, port, data)
        self.child = Child(f"the engine {kind}", command, logs, environment)
        self.child.wait_until_it_answers(self.endpoint)


Start = tuple[list[str | Path], dict[str, str]]


def _ministack(tools: Path, port: int, data: Path | None) -> Start:
    environment = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "ERROR"}
    if data is not None:
        environment |= {"PERSIST_STATE": "1", "STATE_DIR": str(data / "ministack")}
    return [_installed(tools / "ministack" / "bin" / "ministack")], environment


def _dynoxide(tools: Path, port: int, data: Path | None) -> Start:
    kept = [] if data is None else ["--db-path", str(data / "dynoxide.sqlite")]
    return [_installed(tools / "dynoxide" / "dynoxide"), "--host", "127.0.0.1", "--port", str(port), *kept], {}


def _dynamodb_local(tools: Path, port: int, data: Path | None) -> Start:
    folder = _installed(tools / "dynamodb-local")
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
