"""Tables as the reference has them."""

from collections.abc import Iterable, Sequence

MADE = "<!-- Made from the code by `make docs`: change it there. -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; a cell may have any text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(one) for one in line) + " |" for line in lines)


def code(text: str) -> str:
    """Text as code; it has no backtick."""
    return f"`{text}`"


def page(*blocks: str) -> str:
    """The blocks as one page."""
    return "\n\n".join((MADE, *blocks)) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
