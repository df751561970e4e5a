"""How large a text is in a response of Lambda."""

import json

from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.message_size import TOLD_MAX_BYTES, can_be_told, told_bytes


@given(st.one_of(st.text(), st.dictionaries(st.text(), st.lists(st.text()))))
def test_what_is_told_has_the_bytes_of_its_json_as_a_text_in_json(value: object) -> None:
    body = json.dumps(value, ensure_ascii=False)
    assert told_bytes(value) == len(json.dumps(body, ensure_ascii=False).encode()) - len('""')


def test_a_text_can_be_told_to_the_last_byte() -> None:
    for character in ("a", '"', "\\", "\x01", "é", "😀"):
        each = told_bytes(character) - told_bytes("")
        most, rest = divmod(TOLD_MAX_BYTES - told_bytes(""), each)
        text = character * most + "a" * rest
        assert told_bytes(text) == TOLD_MAX_BYTES
        assert can_be_told(text)
        assert not can_be_told(text + "a")
