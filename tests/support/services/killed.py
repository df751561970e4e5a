"""Processes that say what they do, line by line, and are killed in the middle of it."""

import subprocess
import sys

from tests.conftest import ROOT


def last_line(module: str, told: str, at_most: int) -> str:
    """The last line of a process of a module, which is told something and killed (SIGKILL) after so many lines."""
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(told)
        process.stdin.close()
        last = ""
        for number, line in enumerate(process.stdout, start=1):
            last = line.strip()
            if number >= at_most:
                break
        process.kill()
    return last
