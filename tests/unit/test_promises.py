"""Every promise of the documents is held by a test, and every test that says so names a promise that is there."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.promises import DOCUMENTS, PROMISES

ROOT = Path(__file__).parents[2]
EXPLAINING = (
    "Bytes are counted instead of tokens",
    "`tests/support/storage/invariants.py` reads them",
)
"""How the paragraphs begin that promise nothing: they say how something is measured."""


@cache
def held() -> dict[str, list[str]]:
    """The tests that hold each promise: read, not run."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.holds":
                    for promise in mark.args:
                        found[ast.literal_eval(promise)].append(f"{path.name}::{getattr(node, 'name', '')}")
    return found


def words(promise: str) -> str:
    """The document that a promise is in, on one line."""
    return " ".join((ROOT / DOCUMENTS[promise.partition(".")[0]]).read_text("utf-8").split())


def test_every_promise_is_in_its_document_in_these_words() -> None:
    assert [promise for promise, said in PROMISES.items() if " ".join(said.split()) not in words(promise)] == []


def test_every_promise_is_held_by_a_test() -> None:
    assert PROMISES.keys() - held().keys() == set()


def test_every_promise_that_a_test_names_is_there() -> None:
    unknown = {promise: tests for promise, tests in held().items() if promise not in PROMISES}
    assert unknown == {}


def test_every_paragraph_of_the_documents_promises_something() -> None:
    # A new one is noticed here. Rows of tables are their table's: of what is measured, of operations, of settlement.
    silent = []
    for start, document in DOCUMENTS.items():
        said = [" ".join(words.split()) for promise, words in PROMISES.items() if promise.startswith(f"{start}.")]
        blocks = re.split(r"\n\n|\n(?=\d+\. )|\n(?=\| )", (ROOT / document).read_text("utf-8"))
        texts = [" ".join(block.split()) for block in blocks if not block.startswith(("#", "|", "```"))]
        silent += [text for text in texts if not any(one in text for one in said) and not text.startswith(EXPLAINING)]
    assert silent == []
