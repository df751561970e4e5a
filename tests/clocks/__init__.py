"""Wall clocks that go wrong: of processes, by a number of seconds that can change while they run.

It is done from outside, by a library that is loaded before the C library, so that engines and servers need not know.
Programs that ask the kernel themselves (AWS's emulator, in Go; dynoxide, linked statically) keep the real time.
libfaketime 0.9.10, the one that distributions have, cannot be used: under it Python's `time.sleep` fails (EINVAL).
"""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")
NEEDED = None if sys.platform == "linux" and shutil.which("cc") else "Moving clocks needs Linux and a C compiler (cc)."
"""What is missing here; None where clocks can be moved."""
MOVED = "WALL_CLOCK" in os.environ
"""Whether this process itself runs by a clock that was moved."""
_SECONDS = struct.Struct("q")


class WallClock:
    """The clock of all processes that have its `environment`."""

    def __init__(self, folder: Path, ahead: float = 0) -> None:
        """A clock that is some seconds ahead of this process's own, behind when negative; its files are in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / "wall_clock.so"
        compile_: list[str | Path] = ["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"]
        subprocess.run(compile_, check=True)
        self._ahead = folder / "ahead"
        self._ahead.write_bytes(_SECONDS.pack(0))
        self._own = Path(os.environ["WALL_CLOCK"]) if MOVED else None
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._ahead)}
        self.set(ahead)

    def set(self, ahead: float) -> None:
        """Moves the clock: so many seconds ahead of this process's own, at once and for everybody."""
        own = _SECONDS.unpack(self._own.read_bytes())[0] if self._own else 0
        with self._ahead.open("r+b") as file:  # in one write, without truncating what is mapped
            file.write(_SECONDS.pack(own + round(ahead * 1_000_000_000)))
