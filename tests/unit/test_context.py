"""Context assembly: never over the window, the newest first, what must be sent always in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.context import assemble
from minichat.domain.errors import ContextBudgetExceeded
from minichat.domain.message import Message
from minichat.domain.quota import text_tokens
from tests.builders import a_message, a_model


def _cost(text: str) -> int:
    return text_tokens(len(text.encode()), a_model().estimation_budgets)


@given(
    window=st.integers(500, 20_000),
    texts=st.lists(st.text(max_size=2000), max_size=12),
    content=st.text(min_size=1, max_size=2000),
)
def test_what_is_sent_fits_the_window_and_is_the_newest_there_is(window: int, texts: list[str], content: str) -> None:
    model = a_model(context_window=window, system_prompt="Be brief.")
    recent = [a_message(text) for text in texts]
    kept_free = 200
    mandatory = _cost("Be brief.") + _cost(content) + kept_free + model.estimation_budgets.fixed_overhead
    if mandatory > window:
        with pytest.raises(ContextBudgetExceeded):
            assemble(model, "Be brief.", recent, content, kept_free=kept_free)
        return
    made = assemble(model, "Be brief.", recent, content, kept_free=kept_free)
    assert mandatory + sum(_cost(message.content) for message in made.history) <= window
    kept = len(made.history)
    assert list(made.history) == recent[len(recent) - kept :]
    assert made.truncated == (kept < len(recent))
    if made.truncated:
        dropped: Message = recent[len(recent) - kept - 1]
        assert mandatory + sum(_cost(m.content) for m in (*made.history, dropped)) > window


def test_the_estimate_counts_everything_but_the_message_itself() -> None:
    made = assemble(a_model(), "Be brief.", [a_message("one"), a_message("two")], "three", kept_free=0)
    assert made.context_tokens == _cost("Be brief.") + _cost("one") + _cost("two")
