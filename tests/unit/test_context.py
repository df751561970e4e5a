"""Context assembly: never over the window, what must be sent always in, the newest first, the same every time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.context import Assembly, Snapshot, Space, assemble, compression, messages_needed
from minichat.domain.errors import ContextBudgetExceeded
from minichat.domain.identity import MessageId, RequestId, uuid7
from minichat.domain.message import Message
from minichat.domain.policy import Model
from minichat.domain.summary import Compression, Frontier, Summary
from minichat.domain.token_estimate import text_tokens
from tests.support.domain.builders import NOW, a_message, a_model, an_id

SYSTEM = "Be brief."


def _cost(text: str) -> int:
    return text_tokens(len(text.encode()), a_model().estimation_budgets)


def some_messages(*texts: str, **said: Any) -> list[Message]:
    """A conversation: two messages a turn, each later than the one before."""
    return [
        a_message(
            text,
            message_id=MessageId(str(uuid7(NOW, number))),
            request_id=RequestId(an_id(number // 2)),
            role="assistant" if number % 2 else "user",
            **said,
        )
        for number, text in enumerate(texts)
    ]


def a_summary(text: str, covered: Message) -> Summary:
    return Summary(text, Frontier(covered.created_at, covered.message_id), 7)


def tokens_of(made: Assembly, content: str, images: int, model: Model) -> int:
    """What is sent, counted again from the outside."""
    sent = [made.instructions, content, *(message.content for message in made.history)]
    if made.summary is not None:
        sent.append(made.summary.told)
    return sum(_cost(text) for text in sent) + images * model.estimation_budgets.image_token_budget


@given(
    window=st.integers(500, 20_000),
    texts=st.lists(st.text(max_size=2000), max_size=12),
    summarized=st.integers(0, 12),
    limit=st.integers(0, 14),
    content=st.text(min_size=1, max_size=2000),
    images=st.integers(0, 4),
    surcharges=st.sampled_from([0, 500, 1500]),
)
def test_what_is_sent_fits_the_window_and_is_the_newest_there_is(
    window: int, texts: list[str], summarized: int, limit: int, content: str, images: int, surcharges: int
) -> None:
    model = a_model(context_window=window, system_prompt=SYSTEM)
    messages = some_messages(*texts)
    summary = a_summary("Before. " * 50, messages[summarized - 1]) if 0 < summarized <= len(messages) else None
    snapshot, space = Snapshot(messages, summary, limit), Space(200, surcharges, images)
    overhead = 200 + surcharges + model.estimation_budgets.fixed_overhead
    mandatory = _cost(SYSTEM) + _cost(content) + images * model.estimation_budgets.image_token_budget
    if mandatory + overhead > window:
        with pytest.raises(ContextBudgetExceeded):
            assemble(model, SYSTEM, snapshot, content, space)
        return

    made = assemble(model, SYSTEM, snapshot, content, space)

    assert assemble(model, SYSTEM, snapshot, content, space) == made
    assert made.estimated_tokens == tokens_of(made, content, images, model)
    assert made.estimated_tokens + overhead <= window
    assert made.context_tokens == made.estimated_tokens - _cost(content) - images * 1000
    covered = messages[:summarized] if summary else []
    after = messages[len(covered) :]
    shown = [message for message in (after[-limit:] if limit else []) if message.content]
    kept = len(made.history)
    assert list(made.history) == shown[len(shown) - kept :]
    assert made.truncated == (kept < len(shown) or made.summary != summary)
    if kept < len(shown):
        dropped = shown[len(shown) - kept - 1]
        assert made.estimated_tokens + _cost(dropped.content) + overhead > window
    if made.summary != summary and summary is not None:
        assert mandatory + _cost(summary.told) + overhead > window


@given(
    texts=st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=10),
    later=st.lists(st.text(min_size=1, max_size=300), max_size=4),
)
def test_what_a_summary_covers_is_not_sent_and_nothing_between_is_lost(texts: list[str], later: list[str]) -> None:
    messages = some_messages(*texts, *later)
    summary = a_summary("Before.", messages[len(texts) - 1])
    made = assemble(a_model(), "", Snapshot(messages, summary, 100), "now", Space(0))
    assert [message.content for message in made.history] == later
    assert made.summary == summary


def test_a_budget_for_one_more_token_keeps_the_message_alone() -> None:
    window = _cost("five5") + 100 + 4096 + 1
    made = assemble(a_model(context_window=window), "", Snapshot(some_messages("a", "b")), "five5", Space(4096))
    assert (made.history, made.truncated) == ((), True)


def test_a_summary_that_does_not_fit_makes_room_for_messages_and_counts_as_dropped() -> None:
    first, *rest = some_messages("old", "new", "newer")
    window = _cost("now") + 2 * _cost("newer") + 100 + 10
    made = assemble(
        a_model(context_window=window), "", Snapshot([first, *rest], a_summary("x" * 2000, first)), "now", Space(0)
    )
    assert (made.summary, [m.content for m in made.history], made.truncated) == (None, ["new", "newer"], True)


def test_an_older_short_message_does_not_jump_over_a_long_one() -> None:
    made = assemble(
        a_model(context_window=6000), "", Snapshot(some_messages("short", "x" * 50_000, "late")), "now", Space(0)
    )
    assert [message.content for message in made.history] == ["late"]


def test_messages_without_text_and_those_of_the_system_are_not_sent() -> None:
    messages = [*some_messages("one", ""), a_message("of the system", role="system")]
    made = assemble(a_model(), "", Snapshot(messages), "now", Space(0))
    assert [message.content for message in made.history] == ["one"]


def test_bytes_count_and_not_characters() -> None:
    made = assemble(a_model(), "", Snapshot(some_messages("é" * 400)), "now", Space(0))
    assert made.context_tokens == _cost("x" * 800)


def due(snapshot: Snapshot, *, window: int = 100_000, pct: int = 80, verbatim: int = 2) -> Compression | None:
    model = a_model(context_window=window)
    made = assemble(model, "", snapshot, "now", Space(1000))
    return compression(snapshot, made, room=window - 1000, threshold_pct=pct, verbatim_turns=verbatim)


def at(message: Message) -> Frontier:
    return Frontier(message.created_at, message.message_id)


def test_a_summary_is_due_when_more_messages_are_there_than_a_prompt_shows() -> None:
    eight = some_messages(*"abcdefgh")
    assert due(Snapshot(eight, limit=10)) is None
    ten = some_messages(*"abcdefghij")
    # The turn that ends, and the one before it, stay as they are.
    assert due(Snapshot(ten, limit=10)) == Compression(None, at(ten[7]))
    assert due(Snapshot(ten, limit=10), verbatim=1) == Compression(None, at(ten[9]))
    assert due(Snapshot(ten, limit=10), verbatim=4) == Compression(None, at(ten[3]))


def test_messages_that_are_summarized_do_not_count_again() -> None:
    messages = some_messages(*"abcdefghijkl")
    base = a_summary("a to d", messages[3])
    assert due(Snapshot(messages, base, 10)) is None
    base = a_summary("a, b", messages[1])
    assert due(Snapshot(messages, base, 10)) == Compression(base.frontier, at(messages[9]))


def test_a_summary_is_due_when_messages_were_dropped_even_if_there_is_one() -> None:
    messages = some_messages("a", "b", "c" * 5000, "d" * 5000, "e", "f")
    assert due(Snapshot(messages), window=3000) == Compression(None, at(messages[3]))
    base = a_summary("a, b", messages[1])
    assert due(Snapshot(messages, base), window=3000) == Compression(base.frontier, at(messages[3]))


def test_a_first_summary_is_due_when_the_window_is_nearly_full() -> None:
    messages = some_messages("a" * 4000, "b" * 4000, "c", "d")
    full = assemble(a_model(), "", Snapshot(messages), "now", Space(1000)).estimated_tokens
    assert due(Snapshot(messages), window=1000 + full * 100 // 80) == Compression(None, at(messages[1]))
    assert due(Snapshot(messages), window=1000 + full * 100 // 78) is None
    base = a_summary("", messages[0])
    assert due(Snapshot(messages, base), window=1000 + full * 100 // 80) is None


def test_nothing_is_due_when_only_the_last_turns_are_there() -> None:
    assert due(Snapshot(some_messages("a" * 4000, "b" * 4000)), window=3500) is None
    assert due(Snapshot()) is None


@given(
    st.integers(0, 12), st.integers(1, 4), st.lists(st.text(min_size=1, max_size=5), max_size=30), st.integers(0, 30)
)
def test_the_newest_messages_are_enough_to_decide(limit: int, verbatim: int, texts: list[str], covered: int) -> None:
    """What a turn reads says the same as the whole chat would."""
    messages = some_messages(*texts)
    summary = a_summary("so far", messages[covered - 1]) if 0 < covered <= len(messages) else None
    newest = messages[max(len(messages) - messages_needed(limit, verbatim), 0) :]
    assert due(Snapshot(newest, summary, limit), verbatim=verbatim) == due(
        Snapshot(messages, summary, limit), verbatim=verbatim
    )


def test_a_summary_that_just_fits_is_sent_and_one_token_less_leaves_it_out() -> None:
    (covered,) = some_messages("Hello")
    summary = a_summary("They met.", covered)
    budgets = a_model().estimation_budgets
    room = budgets.fixed_overhead + 200 + _cost("And now?") + _cost(summary.told)
    for window, sent in ((room, summary), (room - 1, None)):
        model = a_model(context_window=window)
        assert assemble(model, "", Snapshot([], summary, 10), "And now?", Space(200, 0, 0)).summary == sent


def test_a_note_on_documents_that_just_fits_is_sent_and_leaves_no_room_for_messages() -> None:
    said, (message,) = "These are the documents.", some_messages("Hello")
    room = a_model().estimation_budgets.fixed_overhead + 200 + _cost("And now?") + _cost(said)
    for window, note, history in (
        (room, said, ()),
        (room - 1, "", (message,)),
        (room + _cost("Hello"), said, (message,)),
    ):
        snapshot = Snapshot([message], None, 10, documents_note=said)
        made = assemble(a_model(context_window=window), "", snapshot, "And now?", Space(200))
        assert (made.documents_note, made.history) == (note, history)
