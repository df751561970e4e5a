"""What providers said when they failed, from the log of this machine's server: for the developer's terminal only."""

import json
from collections.abc import Iterator
from pathlib import Path

SERVER_LOG = "logs/server.log"
"""In the state folder."""


class ProviderWords:
    """Reads the server's log from where it ends now, or since the server's start."""

    def __init__(self, state: Path, *, since_start: bool = False) -> None:
        self._file = state / SERVER_LOG
        self._read = self._file.stat().st_size if self._file.exists() and not since_start else 0

    def new(self) -> Iterator[str]:
        """Each failure of a provider since the last call, as its code and the provider's words, redacted as logged."""
        try:
            with self._file.open("rb") as log:
                log.seek(self._read)
                lines = log.read().splitlines(keepends=True)
        except OSError:
            return
        for line in lines:
            if not line.endswith(b"\n"):
                break  # still being written
            self._read += len(line)
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict) and said.get("message") == "provider failed":
                yield f"{said.get('code')}: {said.get('diagnostic')}"
