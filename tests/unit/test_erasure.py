"""How far an erasure is."""

from minichat.domain.erasure import Progress


def test_a_pass_counts_from_nothing_what_it_meets_and_the_next_one_knows_what_chats_it_left() -> None:
    begun = Progress()
    assert (begun.position, begun.met, begun.chats_met, begun.chats_left, begun.passes) == (None, 0, 0, None, 0)
    half = begun.at(("a", "b"), 3, 2, None)
    assert half == Progress(("a", "b"), met=3, chats_met=2)
    over = half.at(None, 4, 1, None)
    assert over == Progress(chats_left=3, passes=1)
    assert over.at(None, 0, 0, None) == Progress(chats_left=0, passes=2)


def test_what_is_waited_for_is_waited_for_until_the_end_of_the_pass() -> None:
    waiting = Progress().at(("a", "b"), 1, 0, "usage").at(("c", "d"), 1, 0, None)
    assert waiting.waits_for == "usage"
    assert waiting.at(None, 1, 0, None).waits_for == "usage"
    assert waiting.at(None, 1, 0, None).at(("a", "b"), 1, 0, None).waits_for is None
