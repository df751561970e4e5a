"""Packed batches of stream events: what goes in comes out, in any cut, at little cost."""

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.stream import Told
from minichat.storage import keys, parts
from minichat.storage.transact import Put
from tests.support.domain.builders import a_caller, a_turn

TURN = a_turn(a_caller())
DELTA = st.text(min_size=1, max_size=300).map(lambda text: Told("delta", {"type": "text", "content": text}))
OTHER = st.builds(Told, st.sampled_from(["tool", "done", "stream_started"]), st.dictionaries(st.text(), st.integers()))


def packed(events: list[Told], first: int = 1) -> list[Put]:
    return parts.puts(TURN, first, events, kept=timedelta(hours=24))


def unpacked(puts: list[Put]) -> list[Told]:
    found: list[Told] = []
    for put in puts:
        item: Any = put.item
        raw = item.serialize()
        first, events = parts._unpacked(raw)
        assert first == len(found) + 1
        found += events
        assert item.sk == keys.stream_part(TURN.tenant_id, TURN.chat_id, TURN.request_id, len(found)).sk
    return found


@given(st.lists(DELTA | OTHER, min_size=1, max_size=60))
def test_what_is_packed_comes_out_as_it_was(events: list[Told]) -> None:
    assert unpacked(packed(events)) == events


def test_more_than_an_item_takes_goes_into_several() -> None:
    events = [Told("delta", {"type": "text", "content": chr(0x4E00 + n % 5000) * 2000}) for n in range(200)]
    puts = packed(events)
    assert len(puts) > 3
    assert unpacked(puts) == events


@given(st.lists(st.integers(4, 12).flatmap(lambda n: st.text("abcdefgh ", min_size=n, max_size=n)), min_size=5))
def test_a_batch_costs_at_most_a_third_more_than_its_text(words: list[str]) -> None:
    (put,) = packed([Told("delta", {"type": "text", "content": word}) for word in words])
    item: Any = put.item
    size = len(item.events)
    assert size <= 1.3 * sum(map(len, words)) + 2
