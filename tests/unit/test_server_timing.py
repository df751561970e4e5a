"""What `Server-Timing` says."""

import time

from minichat.http.server_timing import value
from minichat.observability import WideEvent


def test_times_are_in_milliseconds_and_the_total_is_since_the_request_came() -> None:
    began = time.perf_counter() - 100
    before = (time.perf_counter() - began) * 1000
    read, total = value(WideEvent(spans={"read": 12.3456}), began).split(", ")
    after = (time.perf_counter() - began) * 1000
    name, _, told = total.partition(";dur=")
    assert (read, name) == ("read;dur=12.35", "total")
    assert before - 0.01 <= float(told) <= after + 0.01
