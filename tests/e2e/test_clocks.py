"""A few tests by clocks that are wrong, and the tool itself; `make clocks` runs the whole suite so."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clocks import MOVED, NEEDED, WallClock
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(NEEDED is not None, reason=str(NEEDED))


def test_the_wall_clock_of_a_running_process_is_moved_and_no_other_clock(tmp_path: Path) -> None:
    clock = WallClock(tmp_path, ahead=-86_400)
    asks = "import time\nwhile input(): print(time.time(), time.monotonic(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", asks], env=clock.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for ahead in (-86_400, 0, 86_400):
            clock.set(ahead)
            before = time.time(), time.monotonic()
            process.stdin.write("?\n")  # type: ignore[union-attr]  # pipes, as asked for
            process.stdin.flush()  # type: ignore[union-attr]
            wall, monotonic = map(float, process.stdout.readline().split())  # type: ignore[union-attr]
            assert before[0] <= wall - ahead <= time.time()
            assert before[1] <= monotonic <= time.monotonic()
        process.communicate("\n")


@pytest.mark.skipif(MOVED, reason="this is that run")
def test_some_tests_hold_a_year_ahead_and_at_the_end_of_a_month() -> None:
    sensitive = ["tests/integration/test_quota.py", "tests/e2e/test_quota.py"]
    command = [sys.executable, "-m", "tests.clocks", "--days", "400", "--pytest", *sensitive]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout
