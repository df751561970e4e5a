"""The README's conversation, run again as it stands there: the same answers but for ids, times and tokens."""

import re
from pathlib import Path

from tests.conftest import ROOT
from tests.support.guide import blocks, run
from tests.support.http.client import Stack

_CHANGING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z"), "<time>"),
    (re.compile(r'"trace_id":"[0-9a-f]+"'), '"trace_id":"<trace>"'),
)


def _steady(text: str) -> str:
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    return text.strip()


def test_the_readmes_conversation_is_what_really_happens(stack: Stack, tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (told,) = [block.printed for block in blocks(page) if block.printed is not None]
    assert _lines(run(page, stack, tmp_path, {})) == _lines(re.sub(r"(?m)^# .*\n", "", told))


def _lines(text: str) -> list[str]:
    lines = [_steady(line) for line in text.splitlines()]
    # The address is this stack's.
    return [line for line in lines if line and not line.startswith("$ API=")]
