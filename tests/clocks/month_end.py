"""A plugin of pytest: every test begins less than a second before its month ends, and midnight falls into it.

The process's clock has been moved (`python -m tests.clocks` does so); it is set back from test to test, as clocks are.
"""

import os
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

AHEAD = Path(os.environ["WALL_CLOCK"])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Sets the clock; how long it is until midnight is the same for a test each time."""
    with AHEAD.open("r+b") as file:
        (ahead,) = struct.unpack("q", file.read())
        really = datetime.fromtimestamp(time.time() - ahead / 1e9, UTC)
        next_month = (really.replace(day=1) + timedelta(days=31)).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        left = next_month - really - timedelta(seconds=Random(item.nodeid).uniform(0, 1))
        file.seek(0)
        file.write(struct.pack("q", round(left.total_seconds() * 1e9)))
