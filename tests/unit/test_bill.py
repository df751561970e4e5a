"""What a bill says was estimated and set aside, and by which rule a turn was charged."""

from typing import Any

import pytest

from minichat.domain.bill import Estimate, counted_micro, ended_by, estimate, rule
from minichat.domain.turn import TurnState
from minichat.domain.usage import Usage
from tests.support.domain.builders import NOW, a_caller, a_reserve, a_turn


def test_an_estimate_is_the_reserve_taken_apart() -> None:
    reserve = a_reserve(tokens=2000, max_output_tokens=1000, context_tokens=300, image_tokens=200, tool_tokens=100)
    assert estimate(a_turn(a_caller(), reserve=reserve)) == Estimate(400, 300, 200, 100, 1000)
    # Of a turn that an earlier version began only the whole is known.
    assert estimate(a_turn(a_caller())) == Estimate(1000, 0, 0, 0, 1000)


@pytest.mark.parametrize(
    ("method", "committed", "expected"),
    [
        (None, None, None),
        ("estimated", 1, "estimated"),
        ("released", 0, "released"),
        ("actual", 2000, "actual"),
        ("actual", 1999, "actual_capped"),
    ],
)
def test_a_turn_that_was_charged_less_than_the_provider_counted_is_capped(
    method: Any, committed: int | None, expected: str | None
) -> None:
    turn = a_turn(a_caller(), settlement_method=method, committed_credits_micro=committed, usage=Usage(500, 500))
    assert counted_micro(turn) == 2000
    assert rule(turn) == expected


@pytest.mark.parametrize(
    ("said", "who"),
    [
        ({"state": TurnState.RUNNING}, None),
        ({"state": TurnState.COMPLETED}, "provider"),
        ({"state": TurnState.FAILED, "error_code": "provider_error"}, "provider"),
        ({"state": TurnState.FAILED, "error_code": "internal_error"}, "service"),
        ({"state": TurnState.CANCELLED}, "stream"),
        ({"state": TurnState.CANCELLED, "cancel_requested_at": NOW}, "caller"),
        ({"state": TurnState.CANCELLED, "cancel_requested_at": NOW, "terminal_number": 7}, "watchdog"),
    ],
)
def test_who_ended_a_turn(said: dict[str, Any], who: str | None) -> None:
    assert ended_by(a_turn(a_caller(), **said)) == who
