"""The settlement table of turns-and-quota 6, row by row, and its worked examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.failure_codes import KNOWN_ERROR_CODES
from minichat.domain.settlement import Ending, Settlement, billing, settle
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from tests.support.domain.builders import a_reserve

COMPLETED, FAILED, CANCELLED = TurnState.COMPLETED, TurnState.FAILED, TurnState.CANCELLED
KNOWN = Usage(800, 200)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Ending(COMPLETED, usage=KNOWN), ("completed", "actual")),
        (Ending(COMPLETED), ("completed", "estimated")),
        *[
            (Ending(FAILED, code, usage=KNOWN), ("failed", "actual"))
            for code in (
                "provider_error",
                "provider_timeout",
                "rate_limited",
                "web_search_calls_exceeded",
                "code_interpreter_calls_exceeded",
            )
        ],
        (Ending(FAILED, "provider_error"), ("failed", "estimated")),
        (Ending(FAILED, "context_length_exceeded", usage=KNOWN), ("failed", "released")),
        (Ending(FAILED, "validation_error"), ("failed", "released")),
        (Ending(FAILED, "provider_error", provider_called=False), ("failed", "released")),
        (Ending(FAILED, "provider_error", refused=True), ("failed", "released")),
        (Ending(FAILED, "rate_limited", refused=True), ("failed", "released")),
        (Ending(FAILED, "provider_error", refused=True, usage=KNOWN), ("failed", "actual")),
        (Ending(FAILED, "context_length_exceeded", text="so far"), ("failed", "estimated")),
        (Ending(FAILED, "context_length_exceeded", text="so far", usage=KNOWN), ("failed", "actual")),
        (Ending(FAILED, "provider_error", text="so far", usage=Usage(800, 0)), ("failed", "estimated")),
        (Ending(FAILED, "provider_error", text="so far", usage=Usage(800, 1)), ("failed", "actual")),
        (Ending(CANCELLED, text="so far", usage=Usage(800, 0)), ("aborted", "estimated")),
        (Ending(COMPLETED, text="all", usage=Usage(800, 0)), ("completed", "actual")),
        (Ending(FAILED, "orphan_timeout", usage=KNOWN), ("aborted", "actual")),
        (Ending(FAILED, "orphan_timeout"), ("aborted", "estimated")),
        (Ending(FAILED, "orphan_timeout", provider_called=False), ("aborted", "released")),
        (Ending(CANCELLED, usage=KNOWN), ("aborted", "actual")),
        (Ending(CANCELLED), ("aborted", "estimated")),
        (Ending(CANCELLED, provider_called=False), ("aborted", "released")),
        (Ending(FAILED, "never_heard_of", usage=KNOWN), ("failed", "estimated")),
    ],
)
@pytest.mark.holds("turns.stored-codes", "turns.settlement")
def test_every_ending_has_its_row(ending: Ending, expected: tuple[str, str]) -> None:
    assert billing(ending) == expected


def test_a_running_turn_has_no_price() -> None:
    with pytest.raises(ValueError, match="running"):
        billing(Ending(TurnState.RUNNING))


def _settled(usage: Usage, reserve_tokens: int, tolerance_pct: int = 110) -> Settlement:
    reserve = a_reserve(tokens=reserve_tokens, credits_micro=10_000, output_multiplier=1_000_000)
    return settle(Ending(COMPLETED, usage=usage), reserve, tolerance_pct)


@pytest.mark.parametrize(
    ("usage", "reserve_tokens", "tolerance_pct", "expected"),
    [
        (Usage(800, 200), 2000, 110, (1000, False)),
        (Usage(800, 250), 1000, 105, (1050, False)),
        (Usage(1000, 500), 1000, 110, (1500, True)),
        (Usage(1000, 100), 1000, 110, (1100, False)),
        (Usage(1000, 101), 1000, 110, (1101, True)),
        (Usage(9000, 9000), 1000, 110, (10_000, True)),
    ],
)
@pytest.mark.holds("turns.capped")
def test_overshoot_is_tolerated_up_to_its_factor_and_then_capped(
    usage: Usage, reserve_tokens: int, tolerance_pct: int, expected: tuple[int, bool]
) -> None:
    settled = _settled(usage, reserve_tokens, tolerance_pct)
    assert (settled.committed_micro, settled.overshoot_capped) == expected


@pytest.mark.parametrize(
    ("tokens", "max_output_tokens", "expected"),
    [(2000, 1000, 1050), (100, 200, 50)],
)
def test_an_estimate_is_the_input_and_the_generation_floor(tokens: int, max_output_tokens: int, expected: int) -> None:
    reserve = a_reserve(tokens=tokens, max_output_tokens=max_output_tokens, output_multiplier=1_000_000)
    settled = settle(Ending(CANCELLED), reserve, 110)
    assert (settled.method, settled.committed_micro) == ("estimated", expected)


@pytest.mark.holds("turns.estimated")
def test_what_was_never_sent_costs_nothing() -> None:
    settled = settle(Ending(CANCELLED, provider_called=False), a_reserve(), 110)
    assert settled == Settlement("aborted", "released", 0, 0)


@pytest.mark.parametrize(
    ("text", "bytes_per_token", "expected"),
    [("", 4, 1050), ("x" * 200, 4, 1050), ("x" * 201, 4, 1051), ("x" * 4000, 4, 2000), ("é" * 300, 3, 1200)],
)
@pytest.mark.holds("turns.cut-costs")
def test_what_was_told_is_paid_for(text: str, bytes_per_token: int, expected: int) -> None:
    reserve = a_reserve(output_multiplier=1_000_000, bytes_per_token=bytes_per_token)
    for ending in (
        Ending(CANCELLED, text=text),
        Ending(FAILED, "orphan_timeout", text=text),
        Ending(FAILED, "provider_error", text=text),
        Ending(FAILED, "internal_error", text=text),
    ):
        assert settle(ending, reserve, 110).committed_micro == expected


@pytest.mark.holds("turns.estimated")
def test_what_was_told_costs_no_more_than_the_reserve() -> None:
    settled = settle(Ending(CANCELLED, text="x" * 10**6), a_reserve(credits_micro=4000), 110)
    assert settled.committed_micro == 4000


@given(
    state=st.sampled_from([COMPLETED, FAILED, CANCELLED]),
    code=st.sampled_from([None, *sorted(KNOWN_ERROR_CODES), "unknown"]),
    refused=st.booleans(),
    text=st.text(max_size=400),
    counted_input=st.integers(0, 100),
    credits_micro=st.integers(0, 3000),
)
def test_told_text_is_never_free_and_a_refusal_always_is(
    state: TurnState, code: str | None, refused: bool, text: str, counted_input: int, credits_micro: int
) -> None:
    reserve = a_reserve(credits_micro=credits_micro, output_multiplier=1_000_000)
    # Of an answer that is refused nothing is counted, of one that breaks off perhaps its beginning.
    usage = Usage(counted_input, 0) if text and state is not COMPLETED else Usage()
    settled = settle(Ending(state, code, text=text, refused=refused and not text, usage=usage), reserve, 110)
    assert settled.committed_micro <= credits_micro
    if text:
        assert settled.committed_micro >= min(1000 + -(-len(text.encode()) // 4), credits_micro)
    elif refused and state is FAILED:
        assert settled.committed_micro == 0


@given(
    state=st.sampled_from([COMPLETED, FAILED, CANCELLED]),
    code=st.sampled_from([None, *sorted(KNOWN_ERROR_CODES), "unknown"]),
    usage=st.builds(Usage, st.integers(0, 10**12), st.integers(0, 100_000)),
    called=st.booleans(),
    tokens=st.integers(0, 100_000),
    credits_micro=st.integers(0, 10**9),
)
def test_a_settlement_exceeds_the_reserve_only_by_tolerated_overshoot(
    state: TurnState, code: str | None, usage: Usage, called: bool, tokens: int, credits_micro: int
) -> None:
    reserve = a_reserve(tokens=tokens, credits_micro=credits_micro, max_output_tokens=tokens // 2)
    settled = settle(Ending(state, code, usage=usage, provider_called=called), reserve, 110)
    tolerated = (usage.input_tokens + usage.output_tokens) * 100 <= tokens * 110
    assert settled.committed_micro >= 0
    assert settled.committed_micro <= credits_micro or (settled.method == "actual" and tolerated)
