"""`errors.md`: every code that a caller can meet, with its status and its cause."""

import inspect

from minichat.domain.errors import ChatError
from minichat.domain.failure_codes import ERROR_MESSAGES
from minichat.http.problems import STATUS, UNCLASSED
from tests.reference.markdown import code, page, table

_INTRODUCTION = """\
Refusals are `application/problem+json` (RFC 9457): [contract 2](../contract.md#2-errors) says which members a document
has, and in which order a request is checked. `code` is the stable word."""

_STREAMS = """\
The codes of the event `error`, which ends a stream, each with its fixed sentence
([contract 3](../contract.md#3-streams))."""


def refusals() -> dict[str, tuple[int, str]]:
    """Each code with its status and its cause."""
    # A class below another of the same code is that refusal, found later.
    return {error.code: (status, _cause(error)) for error, status in reversed(STATUS.items())} | UNCLASSED


def write() -> str:
    """The page."""
    rows = [
        (code(name), str(status), cause)
        for name, (status, cause) in sorted(refusals().items(), key=lambda one: (one[1][0], one[0]))
    ]
    return page(
        "# Errors",
        _INTRODUCTION,
        table(("code", "status", "when"), rows),
        "## In a stream",
        _STREAMS,
        table(("code", "message"), [(code(name), message) for name, message in ERROR_MESSAGES.items()]),
    )


def _cause(error: type[ChatError]) -> str:
    """The first paragraph of a class: what follows is for those who raise it."""
    return (inspect.getdoc(error) or "").split("\n\n")[0]
