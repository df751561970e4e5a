"""Engines that speak DynamoDB on this machine, each started as a child process on a free port."""

from pathlib import Path

from minichat.local.process import Child, free_port

KINDS = ("ministack", "dynoxide", "dynamodb-local")
_SERVER = "com.amazonaws.services.dynamodbv2.local.main.ServerRunner"


class EngineMissing(RuntimeError):
    """The engine is not installed, or there is none of that name."""


class Engine:
    """A running engine, its endpoint, and how to stop it. An engine given by URL is somebody else's to stop."""

    def __init__(self, root: Path, kind: str, data: Path | None = None) -> None:
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
        match kind:
            case "ministack":
                self.child = _ministack(tools, port, data)
            case "dynoxide":
                self.child = _dynoxide(tools, port, data)
            case "dynamodb-local":
                self.child = _dynamodb_local(tools, port, data)
            case _:
                raise EngineMissing(f"There is no engine {kind!r}: choose {', '.join(KINDS)}, or a URL.")
        self.child.wait_until_it_answers(self.endpoint)

    def stop(self) -> None:
        """Ends the engine, if it is ours; kept data is written first."""
        if self.child is not None:
            self.child.stop()


def _ministack(tools: Path, port: int, data: Path | None) -> Child:
    environment = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "ERROR"}
    if data is not None:
        environment |= {"PERSIST_STATE": "1", "STATE_DIR": str(data / "ministack")}
    return Child("the engine ministack", [_installed(tools / "ministack" / "bin" / "ministack")], environment)


def _dynoxide(tools: Path, port: int, data: Path | None) -> Child:
    command = [_installed(tools / "dynoxide" / "dynoxide"), "--host", "127.0.0.1", "--port", str(port)]
    if data is not None:
        command += ["--db-path", str(data / "dynoxide.sqlite")]
    return Child("the engine dynoxide", command)


def _dynamodb_local(tools: Path, port: int, data: Path | None) -> Child:
    folder = _installed(tools / "dynamodb-local")
    where = ["-inMemory"] if data is None else ["-dbPath", str(data)]
    command = ["java", f"-Djava.library.path={folder}", "-cp", f"{folder}/*", _SERVER, *where]
    return Child("the engine dynamodb-local", [*command, "-sharedDb", "-port", str(port)])


def _installed(path: Path) -> Path:
    if not path.exists():
        raise EngineMissing(f"{path} is not there: run `make tools`.")
    return path
