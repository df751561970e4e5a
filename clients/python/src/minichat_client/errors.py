"""What can go wrong. Every exception of this package is a MiniChatError, and its text a sentence for people.

MiniChatError
├── Refused            the server said no: `code` is the stable word; one class per code in `problems`
├── Unreachable        nobody answered, or the connection broke, and trying again did not help
│   └── NotMiniChat    something else answered
├── AnswerFailed       the stream of an answer ended with `error`; raised by `read()` alone
└── AttachmentFailed   a file was uploaded and could not be taken in
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar


class MiniChatError(Exception):
    """Anything that this package raises."""


class Unreachable(MiniChatError):
    """No answer, or one that broke off."""


class NotMiniChat(Unreachable):
    """What answers is something else: a portal, a proxy, or the base URL is not whole."""


class AnswerFailed(MiniChatError):
    """An answer that ended with `error`."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{message} [{code}]")


class AttachmentFailed(MiniChatError):
    """A file that could not be taken in; `code` says why, where that is known."""

    def __init__(self, filename: str, code: str | None) -> None:
        self.code = code
        super().__init__(f"{filename} could not be taken in [{code}].")


class Refused(MiniChatError):
    """The server refused, with a problem document (RFC 9457) or, when a gateway did, without one."""

    code: ClassVar[str] = ""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None) -> None:
        self.status = status
        self.problem = problem
        """Every member of the document; empty without one."""
        self.retry_after = retry_after
        """Seconds after which it may be tried again, if it was said."""
        super().__init__(self._sentence())

    @property
    def detail(self) -> str:
        """The server's own sentence."""
        return str(self.problem.get("detail") or self.problem.get("title") or "")

    @property
    def trace_id(self) -> str | None:
        """What the operators of the server find the request by."""
        return self.problem.get("trace_id")

    def _sentence(self) -> str:
        code = self.code or self.problem.get("code")
        if not code:
            return f"The server answers {self.status}."
        # The detail of a problem with fields only repeats the first field.
        fields = "; ".join(f"{one.get('field')}: {one.get('message')}" for one in self.problem.get("errors") or ())
        again = "" if self.retry_after is None else f" Try again in {self.retry_after:g} s."
        return f"{fields.rstrip('.') or self.detail.rstrip('.')} [{code}].{again}"


def refusal(status: int, headers: Mapping[str, str], content: bytes) -> Refused:
    """The exception for a response that is no success: that of its code, or Refused for a code that is not known."""
    from minichat_client.problems import BY_CODE  # noqa: PLC0415  its classes are made from the one above

    try:
        problem = json.loads(content)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        problem = {}
    kind = BY_CODE.get(problem.get("code", ""), Refused)
    return kind(status, problem, _retry_after(headers, problem))


def _retry_after(headers: Mapping[str, str], problem: Mapping[str, Any]) -> float | None:
    """Seconds, from the document or the header, which may also name a moment."""
    said = problem.get("retry_after_seconds", headers.get("retry-after"))
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment.tzinfo else None
