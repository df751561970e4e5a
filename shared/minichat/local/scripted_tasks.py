"""The scripted provider's answers to system tasks, recognized by a tag: the same input gets the same answer."""

import re
from collections.abc import Callable

MARKER = re.compile(r"\[\[([a-z-]+)(?::(.*?))?\]\]", re.DOTALL)


def answer_of_task(text: str) -> str | None:
    """The answer to a request of the system; None for a user's request. Markers in its material have no effect."""
    return next((answer(text) for tag, answer in _TASKS.items() if tag in text), None)


def _summary(request: str) -> str:
    """How each message of a conversation begins."""
    beginnings = re.findall(r"<message [^>]*>\n(.{0,60})", request)
    return f"<analysis>{len(beginnings)} messages.</analysis><summary>{' / '.join(beginnings)}</summary>"


def _title(request: str) -> str:
    """The first words of an exchange."""
    said = re.findall(r"<message [^>]*>\n(.*)", request)
    return f"<title>{' '.join(MARKER.sub('', said[0] if said else '').split()[:6]) or 'A chat'}</title>"


def _description(request: str) -> str:
    """The name of a document."""
    return f"<summary>A document called {request.partition('<document>')[2].strip().partition(chr(10))[0]}.</summary>"


_TASKS: dict[str, Callable[[str], str]] = {
    "<conversation>": _summary,
    "<exchange>": _title,
    "<document>\n": _description,
}
