"""The scripted provider's answers to system tasks, recognized by a tag: the same input gets the same answer.

And the answer to who asks for the instructions.
"""

import re
from collections.abc import Callable
from typing import Any

MARKER = re.compile(r"\[\[([a-z-]+)(?::(.*?))?\]\]", re.DOTALL)
INSTRUCTIONS = "[[instructions]]"


def answer_of_task(text: str) -> str | None:
    """The answer to a request of the system; None for a user's request. Markers in its material have no effect."""
    return next((answer(text) for tag, answer in _TASKS.items() if tag in text), None)


def instructed(text: str, body: dict[str, Any]) -> str:
    """The user's text; where that asks for the instructions of its request, these as what is to be said."""
    if INSTRUCTIONS not in text:
        return text
    said = body.get("instructions") or body.get("system") or ""
    if not said and isinstance(first := next(iter(body.get("messages", ())), None), dict) and first["role"] == "system":
        said = first["content"]
    blocks = said if isinstance(said, list) else [{"text": said}]
    told = " ".join(str(block.get("text", "")) for block in blocks)
    return text.replace(INSTRUCTIONS, f"[[say:{told or 'nothing'}]]")


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
