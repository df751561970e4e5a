"""The suite by clocks that are days ahead and behind, and at the end of a month: `python -m tests.clocks --help`."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from tests.clocks import NEEDED, WallClock

DAYS = (-400, -40, -8, -1, 1, 8, 40, 400)
SUITE = ["tests/unit", "tests/integration", "tests/model", "tests/e2e"]


def main() -> int:
    """Runs what was asked for by each clock, one after the other; 0 when all of it passed, 2 when it cannot be done."""
    options = argparse.ArgumentParser(prog="python -m tests.clocks", description=__doc__)
    options.add_argument("--days", type=int, nargs="*", default=DAYS, help="how far ahead, behind when negative")
    options.add_argument("--no-month-end", dest="month_end", action="store_false")
    options.add_argument("--pytest", nargs=argparse.REMAINDER, default=SUITE, help="what to run, all that follows")
    chosen = options.parse_args()
    if NEEDED:
        print(NEEDED, file=sys.stderr)
        return 2
    rows = [(f"{days:+d} days", days * 86_400, ["--numprocesses", "2", "--dist", "loadfile"]) for days in chosen.days]
    if chosen.month_end:
        # One process: the tests set the clock, which is everybody's.
        rows.append(("month's end", 0, ["-p", "no:xdist", "-p", "tests.clocks.month_end"]))
    told = [f"{'clock':<12}  passed  failed  left out  seconds"]
    for name, ahead, arguments in rows:
        told.append(f"{name:<12}  {_run(ahead, [*arguments, *chosen.pytest])}")
        print("\n".join(("", *told, "")), flush=True)
    return int(any(row.split()[-3] != "0" for row in told[1:]))


def _run(ahead: int, arguments: list[str]) -> str:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="minichat-clock-") as folder:
        report = Path(folder) / "report.xml"
        environment = {**os.environ, **WallClock(Path(folder), ahead).environment}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
        subprocess.run(command, env=environment, check=False)
        if not report.exists():
            return f"{'-':>6}  {'all':>6}  {'-':>8}  {time.monotonic() - began:7.0f}"
        said = next(ElementTree.parse(report).iter("testsuite")).attrib
    tests, bad, skipped = int(said["tests"]), int(said["failures"]) + int(said["errors"]), int(said["skipped"])
    return f"{tests - bad - skipped:6}  {bad:6}  {skipped:8}  {time.monotonic() - began:7.0f}"


if __name__ == "__main__":
    sys.exit(main())
