"""What is told of a tool's work: our own ids alone, and no more than so much."""

from hypothesis import given
from hypothesis import strategies as st

from minichat.domain.citations import CitedFile
from minichat.domain.identity import AttachmentId
from minichat.domain.tool_details import CUT, MAX_OUTPUT_BYTES, MAX_QUERY, UNTOLD, ToolDetails, told_details
from tests.support.domain.builders import an_id

FILES = {f"file-{number}": CitedFile(AttachmentId(an_id(number)), f"{number}.pdf") for number in range(100)}


def test_of_nothing_that_is_told_nothing_is() -> None:
    assert told_details(UNTOLD, FILES) == {}
    assert told_details(ToolDetails(files=(), output="", query=" "), FILES) == {"files_searched": [], "output": ""}


def test_files_are_the_chats_each_once_and_the_others_are_nobodys_business() -> None:
    found = ToolDetails(files=("file-2", "file-another-chats", "file-1", "file-2"))
    assert told_details(found, FILES) == {
        "files_searched": [
            {"attachment_id": an_id(2), "title": "2.pdf"},
            {"attachment_id": an_id(1), "title": "1.pdf"},
        ]
    }
    assert len(told_details(ToolDetails(files=tuple(FILES)), FILES)["files_searched"]) == 50


@given(st.text(st.characters(exclude_categories=[]), max_size=20).map(lambda text: text * 1000))
def test_an_output_is_whole_characters_of_so_many_bytes(text: str) -> None:
    told = told_details(ToolDetails(output=text, query=text), {})
    size = len(told["output"].encode())
    assert size <= MAX_OUTPUT_BYTES
    if told["output"].endswith(CUT):
        assert size > MAX_OUTPUT_BYTES - 4
    else:
        assert told["output"] == text.encode(errors="replace").decode()
    assert len(told.get("query", "").encode()) <= MAX_QUERY * 4
