"""Tables and progress for a terminal."""

import io
import sys
from collections.abc import Iterable, Sequence


def show_anything() -> None:
    """Makes output replace characters that the terminal lacks, and invalid bytes, instead of failing."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def plain(text: object) -> str:
    """A text without what would steer a terminal: names of tenants and users may have any character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The rows under their head, in columns as wide as their widest cell; numbers are right-aligned."""
    cells = [list(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    numeric = [bool(cells) and all(row[i].lstrip("-").isdigit() for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(cell.rjust(w) if n else cell.ljust(w) for cell, w, n in zip(row, widths, numeric, strict=True))
        for row in (list(head), *cells)
    ]
    return "\n".join(line.rstrip() for line in lines)


class ProgressLine:
    """A progress count for long work, shown on a terminal only."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._watched = sys.stderr.isatty()

    def __enter__(self) -> "ProgressLine":
        return self

    def at(self, count: int) -> None:
        """Shows how far the work is."""
        if self._watched:
            print(f"\r{count} {self._what}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._watched:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
