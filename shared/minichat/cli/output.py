"""Tables for a terminal."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The rows under their head, in columns as wide as their widest cell; numbers to the right."""
    cells = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    numeric = [bool(cells) and all(row[i].lstrip("-").isdigit() for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(cell.rjust(w) if n else cell.ljust(w) for cell, w, n in zip(row, widths, numeric, strict=True))
        for row in (list(head), *cells)
    ]
    return "\n".join(line.rstrip() for line in lines)
