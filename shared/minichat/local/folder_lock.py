"""One state folder, one stack: two that write the same files would lose each other's chats."""

import fcntl
from pathlib import Path
from typing import TextIO

from minichat.local.process import CannotStart


class FolderTaken(CannotStart):
    """Another stack runs with this state folder; the message has its address."""


class FolderLock:
    """The lock of a state folder. It ends with the process, however that ends."""

    def __init__(self, state: Path) -> None:
        """Takes the lock.

        Raises FolderTaken when another process holds it.
        """
        state.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (state / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            where = self._file.read().strip()
            self._file.close()
            raise FolderTaken(
                f"A stack runs with {state} already, {f'at {where}' if where else 'and is just starting'}. "
                "Use that one, or start another with `--state FOLDER --port 0`."
            ) from None
        self.tell("")

    def tell(self, address: str) -> None:
        """Writes down where the stack is, for those who are refused."""
        self._file.truncate(0)
        self._file.write(address)
        self._file.flush()

    def release(self) -> None:
        """Lets another stack have the folder."""
        self._file.close()
