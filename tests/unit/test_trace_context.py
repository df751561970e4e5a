import pytest

from minichat import trace_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("given", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-09"])
def test_a_callers_trace_goes_on(given: str) -> None:
    assert trace_context.trace_id(given) == TRACE


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
    ],
)
def test_a_header_that_is_not_valid_is_as_none(given: str | None) -> None:
    """W3C Trace Context, 3.2.2: ids of zeros, version ff and capital letters are not valid."""
    made = trace_context.trace_id(given)
    assert len(made) == 32
    assert int(made, 16) != 0
    assert made != TRACE


def test_what_is_passed_on_is_of_the_same_trace_and_a_new_span() -> None:
    first, second = trace_context.traceparent(TRACE), trace_context.traceparent(TRACE)
    assert trace_context.trace_id(first) == trace_context.trace_id(second) == TRACE
    assert first != second
