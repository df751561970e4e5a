"""The sources of an answer (context-attachments-providers 5).

Providers are not trusted: their ids never leave the backend, an address must be safe to lead a client to, and titles,
texts and the whole are bounded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from minichat.domain.identity import AttachmentId

Source = Literal["file", "web"]
Span = tuple[int, int]
"""Code points of the whole answer: the number of the first, from 0, and of the one after the last."""

MAX_CITATIONS = 100
MAX_BYTES = 32_768
"""Of all citations of an answer together: they are written with its message, and move with it."""
TITLE_MAX = 255
SNIPPET_MAX = 500
URL_MAX = 2048

_OVERHEAD_BYTES = 50
"""What a citation takes besides its words."""

_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")


@dataclass(frozen=True, slots=True)
class CitedFile:
    """A file of the chat, as a citation names it: its id at the provider never leaves the backend."""

    attachment_id: AttachmentId
    filename: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A source as a provider names it; `target` is the address of a page, or the provider's id of a file.

    `text` is what the provider quotes from the source, and `span` the part of the answer that it supports.
    """

    source: Source
    target: str
    title: str = ""
    text: str = ""
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """A source as clients see it; `target` is the address of a page, or the id of an attachment."""

    source: Source
    target: str
    title: str
    snippet: str = ""
    span: Span | None = None


def citations(cited: Iterable[Cited], files: Mapping[str, CitedFile], answer: str) -> tuple[Citation, ...]:
    """What a provider cites in an answer, each source once for each part that it supports, in the provider's order.

    `files` are the chat's, by the provider's id. Other files, addresses that nobody should be led to, and what comes
    after `MAX_CITATIONS` or `MAX_BYTES` are left out. Never raises.
    """
    found: dict[tuple[Source, str, Span | None], Citation] = {}
    size = 0
    for one in cited:
        citation = _citation(one, files, answer)
        if citation is None or (key := (citation.source, citation.target, citation.span)) in found:
            continue
        words = citation.target + citation.title + citation.snippet
        size += _OVERHEAD_BYTES + len(words.encode(errors="replace"))
        if size > MAX_BYTES or len(found) == MAX_CITATIONS:
            break
        found[key] = citation
    return tuple(found.values())


def _citation(cited: Cited, files: Mapping[str, CitedFile], answer: str) -> Citation | None:
    span = cited.span
    if span is not None and not 0 <= span[0] <= span[1] <= len(answer):
        span = None
    target, title = cited.target, " ".join(cited.title.translate(_CONTROLS).split())
    if cited.source == "file":
        if (file := files.get(cited.target)) is None:
            return None
        target, title = file.attachment_id, file.filename
    elif (host := _host(cited.target)) is None:
        return None
    else:
        title = title or host
    snippet = cited.text
    if not snippet.strip():
        snippet = "" if span is None else answer[slice(*span)]
    return Citation(cited.source, target, title[:TITLE_MAX], snippet[:SNIPPET_MAX], span)


def _host(url: str) -> str | None:
    """The host of a page that a client may be led to: http or https, and without a user's name or password.

    Browsers read a backslash as a slash, and drop line ends: what they would read differently is refused.
    """
    if len(url) > URL_MAX or not url.isprintable() or " " in url or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is not a number
    except ValueError:
        return None
    return parts.hostname if parts.scheme in {"http", "https"} and "@" not in parts.netloc else None


def told(one: Citation) -> dict[str, Any]:
    """A citation as it is told, in a stream and in a list."""
    target = "url" if one.source == "web" else "attachment_id"
    data: dict[str, Any] = {"source": one.source, "title": one.title, target: one.target, "snippet": one.snippet}
    if one.span is None:
        return data
    start, end = one.span
    return {**data, "span": {"start": start, "end": end}}
