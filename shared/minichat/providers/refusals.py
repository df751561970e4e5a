"""A provider's refusals: the error code for the user, and whether and when to retry.

The status decides first, the error codes of the body second. One kind of code overrides the status: an account out of
credit gets the status of too many requests, but no retry helps.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from minichat.domain.usage import Usage
from minichat.providers.chunks import Failed, FailureCode
from minichat.providers.json_fields import UNREADABLE, at, document

RATE_LIMITED = frozenset({"rate_limit_exceeded", "rate_limit_error", "too_many_requests", "throttlingexception", "429"})
TIMED_OUT = frozenset({"timeout_error", "modeltimeoutexception", "vector_store_timeout", "408", "504"})
OUT_OF_CREDIT = frozenset(
    {
        *("insufficient_quota", "insufficient_balance", "billing_hard_limit_reached", "billing_not_active"),
        *("project_spend_limit_exceeded", "organization_spend_limit_exceeded"),
        *("billing_error", "contract_spend_limit_reached", "enforced_spend_limit_reached"),
        *("linked_organization_spend_limit_reached", "linked_organization_billing_unavailable"),
    }
)
"""Error codes for an account that must pay first."""
TOO_LONG = frozenset(
    {
        *("context_length_exceeded", "context_window_exceeded", "contextwindowexceedederror"),
        *("exceed_context_size_error", "string_above_max_length", "request_too_large", "input_too_long", "413"),
    }
)
"""Error codes for a prompt too long for the model, or for the server's request limit."""
NOT_VALID = frozenset(
    {
        *("invalid_request_error", "invalid_request", "invalid_prompt", "invalid_value", "validationexception"),
        *("bad_request", "badrequesterror", "bad_request_error", "unprocessable_entity", "400", "422"),
    }
)
"""Error codes for a request that is never accepted, however often it comes."""

_TIMEOUT_STATUSES = frozenset({408, 504, 524})
_NOT_VALID_STATUSES = frozenset({400, 415, 422})
_TOO_LONG_WORDS = re.compile(
    r"context (?:length|window|size|limit)|(?:prompt|input) (?:is )?too long|too many (?:input )?tokens"
    r"|exceeds? the (?:maximum )?(?:number of )?(?:allowed )?(?:input )?tokens?|too large for model",
    re.IGNORECASE,
)
"""For servers with one error code for every bad request: the sentence shows whether it was too long."""
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")
_WAITS = (("retry-after-ms", 1000), ("x-ms-retry-after-ms", 1000), ("retry-after", 1))
"""Headers that say how long to wait, with their units per second, the most precise first."""


def code_of(*words: Any, message: Any = None) -> FailureCode:
    """The code for the user of a failure that a provider describes with these words; values of other types are ignored.

    The sentence beside them counts only if they say that the request is at fault.
    """
    said = set(_words(words))
    if said & OUT_OF_CREDIT:
        return "provider_error"
    if said & RATE_LIMITED:
        return "rate_limited"
    if said & TIMED_OUT:
        return "provider_timeout"
    if said & TOO_LONG:
        return "context_length_exceeded"
    if said & NOT_VALID or any("image" in word for word in said):
        return "context_length_exceeded" if _TOO_LONG_WORDS.search(str(message)) else "validation_error"
    return "provider_error"


def failed(problem: Any, usage: Usage) -> Failed:
    """The failure that this JSON describes: an object with error codes, or a sentence."""
    if not isinstance(problem, dict):
        problem = {"message": problem}
    words = list(_words(_said(problem)))
    diagnostic = f"{words[0] if words else ''}: {problem.get('message') or ''}"
    return Failed(code_of(*words, message=problem.get("message")), diagnostic, usage, refused=True)


def of_status(status: int, headers: Mapping[str, str], body: str) -> tuple[Failed, bool]:
    """The failure behind a status other than 200, and whether the same request may succeed later."""
    words = set(_words(_of_body(body)))
    code: FailureCode = "provider_error"
    if status in _TIMEOUT_STATUSES:
        code = "provider_timeout"
    elif status == 429 and not words & OUT_OF_CREDIT:
        code = "rate_limited"
    elif status in _NOT_VALID_STATUSES or status == 413:
        code = code_of(*words, 413 if status == 413 else 400, message=body)
    asked_to_try = {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower())
    may_pass = (status == 429 or status >= 500) if asked_to_try is None else asked_to_try
    # A status below 300 is no refusal of an API, and the request's outcome is unknown.
    failure = Failed(code, f"status {status}: {body}", refused=status >= 300)
    return failure, may_pass and not words & OUT_OF_CREDIT


def seconds_to_wait(headers: Mapping[str, str], now: datetime) -> float:
    """The seconds that a provider asks to wait before a retry; 0 when it does not say, or cannot be understood.

    A date is compared with the provider's own clock, if its answer has the time.
    """
    for name, units in _WAITS:
        if _NUMBER.fullmatch(found := headers.get(name, "").strip()):
            return float(found) / units
    until = _date(headers.get("retry-after", ""))
    return 0 if until is None else max((until - (_date(headers.get("date", "")) or now)).total_seconds(), 0)


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _of_body(body: str) -> tuple[Any, ...]:
    try:
        found = document(body)
    except UNREADABLE:
        return ()
    return *_said(found), *_said(found.get("error"))


def _said(problem: Any) -> tuple[Any, ...]:
    return at(problem, "code"), at(problem, "type"), at(problem, "details", "error_code"), at(problem, "__type")


def _words(found: tuple[Any, ...]) -> Iterator[str]:
    """The words among these values. The type "error" says nothing."""
    said = (str(one).casefold() for one in found if isinstance(one, str | int))
    return (word for word in said if word not in {"", "error"})
