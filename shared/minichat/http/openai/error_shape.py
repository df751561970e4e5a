"""Refusals in OpenAI's shape: `{"error": {message, type, param, code}}`, with what else a problem document says."""

from typing import Any

from starlette.responses import JSONResponse, Response

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: dict[str, tuple[int, str, str | None]] = {
    "unauthenticated": (401, "invalid_api_key", None),
    "quota_exceeded": (429, "insufficient_quota", None),
    "rate_limited": (429, "rate_limit_exceeded", None),
    "invalid_model": (404, "model_not_found", "model"),
    "model_not_found": (404, "model_not_found", "model"),
    "context_budget_exceeded": (400, "context_length_exceeded", None),
    # Not 409: the client would send it again, and again in vain.
    "not_latest_turn": (400, "not_latest_turn", None),
    "web_search_disabled": (400, "web_search_disabled", "tools"),
}
"""Status, code and parameter of problems for which OpenAI has words of its own; all others keep ours."""

_FAILURES = {
    "rate_limited": (429, "rate_limit_exceeded"),
    "provider_timeout": (504, "provider_timeout"),
    "provider_error": (502, "provider_error"),
    "context_length_exceeded": (400, "context_length_exceeded"),
    "validation_error": (400, "invalid_prompt"),
    "cancelled": (400, "cancelled"),
}
"""Status and code of an answer that failed, where no response object can say so."""


def of_problem(status: int, code: str, detail: str, said: dict[str, Any]) -> Response:
    """The response of a problem; `said` is what its document has besides."""
    status, told, param = _CODES.get(code, (status, code, None))
    found = said.pop("errors", None)
    if found:
        told, param, detail = found[0]["code"], found[0]["field"], found[0]["message"]
    return JSONResponse({"error": shaped(status, told, detail, param) | said}, status)


def of_failure(code: str, message: str) -> Response:
    """The response of an answer that failed for this code (`domain.failure_codes`)."""
    status, told = _FAILURES.get(code, (500, code))
    return JSONResponse({"error": shaped(status, told, message)}, status)


def failure(code: str, message: str) -> dict[str, Any]:
    """The same within a stream."""
    status, told = _FAILURES.get(code, (500, code))
    return shaped(status, told, message)


def shaped(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's four members; the type follows from code and status."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    kind = code if code == "insufficient_quota" else kind
    return {"message": message, "type": kind, "param": param, "code": code}
