"""A conversation on a terminal or in a pipe: the answer goes to stdout, notes about it to stderr."""

import re
import sys

from minichat.cli.output import show_anything

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that could move a terminal's cursor or change its colour or title; tabs and newlines stay."""
_DIM, _PLAIN = "\033[2m", "\033[0m"


class Screen:
    """Prints text as it comes, and notes on lines of their own. Escape codes are for terminals only."""

    def __init__(self) -> None:
        show_anything()
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._terminal = sys.stdout.isatty()
        self._dims = sys.stderr.isatty()
        self._in_line = False

    def text(self, text: str) -> None:
        """More of an answer."""
        # The answer must not control the terminal; a file gets it unchanged.
        shown = _CONTROLS.sub("", text) if self._terminal else text
        print(shown, end="", flush=True)
        self._in_line = not shown.endswith("\n") if shown else self._in_line

    def line(self, text: str = "") -> None:
        """Whole lines."""
        self.text(f"{text}\n")

    def end_line(self) -> None:
        """Ends the line that was begun, if one was."""
        if self._in_line:
            self.text("\n")

    def note(self, text: str) -> None:
        """Something about the answer."""
        if self._terminal:
            self.end_line()
        shown = _CONTROLS.sub("", text)
        print(f"{_DIM}{shown}{_PLAIN}" if self._dims else shown, file=sys.stderr, flush=True)
