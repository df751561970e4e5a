"""Events as they are told."""

import pytest

from minichat.domain.stream import Started, told


@pytest.mark.holds("contract.summary-applied")
def test_a_summary_in_the_prompt_is_told_and_its_absence_is_not() -> None:
    plain = told(Started("r", "m", True)).data
    assert plain == {"request_id": "r", "message_id": "m", "is_new_turn": True}
    assert told(Started("r", "m", True, 0)).data == plain | {"thread_summary_applied": {"token_estimate": 0}}
