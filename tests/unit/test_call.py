"""When a call has to be over: with its invocation, by the store's clock."""

import time

import pytest
from starlette.requests import Request

from minichat.http import deps
from tests.support.domain.builders import a_caller


@pytest.mark.parametrize("left", [5, 60, 900])
async def test_a_call_is_over_when_its_invocation_is(left: int) -> None:
    state = {"deadline_ms": (time.time() + left) * 1000, "caller": a_caller(), "trace_id": ""}
    call = await deps._call(Request({"type": "http", "state": state}))
    assert call.ends_at is not None
    # Reading the clocks takes a moment, on a busy machine more than one.
    assert left - 4 < (call.ends_at - call.now).total_seconds() <= left + 0.1


async def test_a_call_that_no_invocation_ends_has_no_end() -> None:
    call = await deps._call(Request({"type": "http", "state": {"caller": a_caller(), "trace_id": ""}}))
    assert call.ends_at is None
