"""What shows nothing is blank, whatever it is made of."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.chat import clean_title
from minichat.domain.errors import InvalidRequest
from minichat.domain.files import UNNAMED, clean_name
from minichat.domain.message import checked_content
from minichat.domain.text import is_blank

INVISIBLE = [
    "",
    " \t\r\n\x0b\x0c",
    "\x00\x07\x1b\x7f\x85",
    "\u00a0\u1680\u2003\u202f\u205f\u3000",
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u061c\u180e",
    "\u202a\u202e\u2066\u2069",
    "\u2028\u2029",
    "\u115f\u1160\u3164\uffa0\u2800\u034f",
    "\ufe0f\U000e0100",
    "\U000e0001\U000e0041",
]
VISIBLE = ["a", "0", "!", "é", "你", "\u200da\u200d", "👩‍👩‍👧", "e\u0301", "ㅤx", "🏴\U000e0067\U000e007f"]


@pytest.mark.parametrize("text", INVISIBLE)
def test_invisible_characters_alone_are_blank_everywhere(text: str) -> None:
    assert is_blank(text)
    for refuses in (clean_title, checked_content):
        with pytest.raises(InvalidRequest) as refused:
            refuses(text)
        assert refused.value.errors[0].code == "blank"
    assert clean_name(text) == UNNAMED


@pytest.mark.parametrize("text", VISIBLE)
def test_one_visible_character_is_enough(text: str) -> None:
    assert not is_blank(text)
    assert (clean_title(text), checked_content(text)) == (text, text)
    assert clean_name(text) != UNNAMED


@given(st.text(), st.text())
def test_a_text_is_blank_when_all_its_parts_are(one: str, other: str) -> None:
    assert is_blank(one + other) == (is_blank(one) and is_blank(other))


def test_what_unicode_calls_space_control_or_format_is_invisible() -> None:
    seen = [
        hex(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Zl", "Zp", "Zs"} and not is_blank(chr(code))
    ]
    assert seen == []
