"""What clients are told of a tool's work (contract 3). Providers are not trusted: their ids never leave the backend,
and whatever is told is bounded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minichat.domain.citations import TITLE_MAX, CitedFile

MAX_OUTPUT_BYTES = 8_192
MAX_QUERY = 500
MAX_FILES = 50
CUT = "...[truncated]"


@dataclass(frozen=True, slots=True)
class ToolDetails:
    """What a tool did, as its provider reports it: ids of the files in which it found something, what its code printed,
    what it looked for on the web. None is what the provider does not report."""

    files: tuple[str, ...] | None = None
    output: str | None = None
    query: str | None = None


UNTOLD = ToolDetails()


def told_details(details: ToolDetails, files: Mapping[str, CitedFile]) -> dict[str, Any]:
    """What is told of it; `files` are the chat's, by their ids at the provider; others are left out."""
    told: dict[str, Any] = {}
    if details.files is not None:
        known = [files[one] for one in dict.fromkeys(details.files) if one in files]
        told["files_searched"] = [
            {"attachment_id": one.attachment_id, "title": one.filename[:TITLE_MAX]} for one in known[:MAX_FILES]
        ]
    if details.output is not None:
        told["output"] = _cut(details.output)
    if details.query is not None and (query := " ".join(_whole(details.query).split())):
        told["query"] = query[:MAX_QUERY]
    return told


def _cut(text: str) -> str:
    """At most `MAX_OUTPUT_BYTES` of UTF-8, and whole characters of it."""
    encoded = _whole(text[: MAX_OUTPUT_BYTES + 1]).encode()
    if len(encoded) <= MAX_OUTPUT_BYTES:
        return encoded.decode()
    return encoded[: MAX_OUTPUT_BYTES - len(CUT)].decode(errors="ignore") + CUT


def _whole(text: str) -> str:
    """Without halves of characters, which JSON can carry and UTF-8 cannot."""
    return text.encode(errors="replace").decode()
