"""Refusals as problem documents (RFC 9457): one table from error to status, one renderer, one way to document them."""

from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from minichat.domain import access_errors, erasure, errors, export
from minichat.http.openai import error_shape
from minichat.http.public_path import public_path
from minichat.observability import note

MEDIA_TYPE = "application/problem+json"
PROBLEM = "#/components/schemas/Problem"

STATUS: dict[type[errors.ChatError], int] = {
    errors.InvalidRequest: 400,
    errors.InvalidCursor: 400,
    errors.InvalidTurnState: 400,
    errors.InvalidModel: 400,
    errors.WebSearchDisabled: 400,
    errors.ImagesDisabled: 400,
    errors.TooManyImages: 400,
    errors.InvalidAttachment: 400,
    access_errors.AuthorizationInvalid: 400,
    errors.InvalidReactionTarget: 400,
    errors.InputTooLong: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.FeatureNotLicensed: 403,
    erasure.BeingErased: 403,
    errors.ChatNotFound: 404,
    errors.TurnNotFound: 404,
    errors.ModelNotFound: 404,
    errors.AttachmentNotFound: 404,
    errors.MessageNotFound: 404,
    access_errors.ApiKeyNotFound: 404,
    access_errors.GrantNotFound: 404,
    access_errors.TenantNotFound: 404,
    access_errors.PolicyNotFound: 404,
    access_errors.QueueNotFound: 404,
    erasure.ErasureNotFound: 404,
    export.ExportNotFound: 404,
    access_errors.ProvidersNotFound: 404,
    access_errors.PolicyConflict: 409,
    access_errors.ProvidersConflict: 409,
    errors.GenerationInProgress: 409,
    errors.ChatMoved: 409,
    errors.RequestIdConflict: 409,
    errors.NotLatestTurn: 409,
    errors.IdempotencyKeyConflict: 409,
    access_errors.AuthorizationConflict: 409,
    erasure.ErasureRunning: 409,
    export.ExportRunning: 409,
    errors.AttachmentLocked: 409,
    errors.FileTooLarge: 413,
    errors.UnsupportedFileType: 415,
    errors.UnsupportedMedia: 415,
    errors.RequestIdReused: 422,
    errors.ContextBudgetExceeded: 422,
    errors.QuotaExceeded: 429,
    errors.CreditsTaken: 429,
    errors.RateLimited: 429,
    errors.SendsMoved: 429,
    errors.ServiceUnavailable: 503,
}

UNCLASSED: dict[str, tuple[int, str]] = {
    "not_found": (404, "There is no such path."),
    "method_not_allowed": (405, "The path has no such method; `Allow` names those that it has."),
    "request_too_large": (413, "The request has more than 6 MB."),
    "internal_error": (500, "A failure of ours; `trace_id` finds it."),
}
"""Codes without an error class of their own: each with its status, and when it is answered."""

_FRAMEWORK_CODES = {status: code for code, (status, _) in UNCLASSED.items()}

EVERYWHERE = (
    errors.InvalidRequest,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.FeatureNotLicensed,
    erasure.BeingErased,
    errors.ServiceUnavailable,
)
"""Refusals that any authenticated operation may give."""

MUTATION_ERRORS = (
    errors.ChatNotFound,
    errors.TurnNotFound,
    errors.Forbidden,
    errors.InvalidTurnState,
    errors.NotLatestTurn,
    errors.GenerationInProgress,
)
"""Refusals of retry, edit and delete, in the order of their checks."""


def of_error(request: Request, error: errors.ChatError) -> Response:
    """The document of a refusal."""
    extra: dict[str, Any] = {}
    match error:
        case errors.InvalidRequest(errors=found) if found:
            extra["errors"] = [{"field": e.field, "message": e.message, "code": e.code} for e in found]
        case errors.RequestIdConflict(turn_state=state, request_id=joinable):
            extra["turn_state"] = state
            extra |= _stream_url(request, joinable)
        case errors.GenerationInProgress(request_id=joinable):
            extra |= _stream_url(request, joinable)
        case errors.Forbidden(action=str(action)):
            extra["action"] = action
        case errors.QuotaExceeded(limit=limit):
            extra |= _used_up(limit)
        case errors.RateLimited(scope=scope, limit=limit, whose=whose):
            extra |= {"scope": scope, "whose": whose, "limit": limit}
    seconds = getattr(error, "retry_after_seconds", None)
    if seconds is not None:
        extra["retry_after_seconds"] = seconds
    response = _problem(request, STATUS[type(error)], error.code, str(error), **extra)
    if seconds is not None:
        response.headers["retry-after"] = str(seconds)
    if isinstance(error, errors.Unauthenticated):
        response.headers["www-authenticate"] = "Bearer"
    return response


def _used_up(limit: errors.UsedUp) -> dict[str, str]:
    told = {"quota_scope": limit.scope, "quota_tier": limit.tier, "quota_period": limit.period}
    if limit.next_reset is not None:
        told["next_reset"] = limit.next_reset.isoformat().replace("+00:00", "Z")
    return {name: value for name, value in told.items() if value is not None}


def _stream_url(request: Request, request_id: str | None) -> dict[str, str]:
    chats, is_of_chat, rest = request.url.path.partition("/chats/")
    if request_id is None or not is_of_chat:
        return {}
    path = f"{chats}/chats/{rest.partition('/')[0]}/turns/{request_id}/stream"
    return {"stream_url": public_path(request, path)}


def of_validation(request: Request, error: RequestValidationError) -> Response:
    """The document of an invalid request: 400, never 422, with every wrong field named."""
    found = [
        errors.FieldError(_field(problem["loc"]), str(problem["msg"]), str(problem["type"]))
        for problem in error.errors()
    ]
    return of_error(request, errors.InvalidRequest(*found))


def of_framework(request: Request, error: HTTPException) -> Response:
    """The document of a refusal by the router: no such path, no such method."""
    code = _FRAMEWORK_CODES.get(error.status_code, "invalid_request")
    response = _problem(request, error.status_code, code, str(error.detail))
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """The methods of the request's path (RFC 9110, section 15.5.6): the router names only those of one route."""
    routes, scope = request.app.routes, dict(request.scope)
    return [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def of_failure(request: Request) -> Response:
    """The document of an internal error: it shows nothing internal; the trace id leads to the cause."""
    return _problem(request, 500, "internal_error", "Something went wrong on our side.")


def documented(*refusals: type[errors.ChatError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of an operation that may refuse with these errors, besides those of EVERYWHERE."""
    codes: dict[int, list[str]] = {413: ["request_too_large"], 429: ["rate_limited"], 500: ["internal_error"]}
    every: tuple[type[errors.ChatError], ...] = (*EVERYWHERE, *refusals)
    for refusal in every:
        codes.setdefault(STATUS[refusal], []).append(refusal.code)
    # By reference: a model would make every route build a validator per status at each cold start.
    content = {MEDIA_TYPE: {"schema": {"$ref": PROBLEM}}}
    return {
        status: {"description": " · ".join(f"`{code}`" for code in sorted(set(words))), "content": content}
        for status, words in sorted(codes.items())
    }


def usual_detail(code: str) -> str:
    """What the document of a problem says in words, where nothing more is known than its code."""
    told = {error.code: error.detail for error in reversed(STATUS)}
    return told.get(code) or UNCLASSED[code][1]


def _problem(request: Request, status: int, code: str, detail: str, **extra: Any) -> Response:
    note(code=code)
    state = request.scope.get("state", {})
    if state.get("speaks_openai"):
        return error_shape.of_problem(status, code, detail, extra)
    document = {
        "type": f"urn:minichat:problem:{code}",
        "title": code,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "trace_id": state.get("trace_id", ""),
        **extra,
    }
    return JSONResponse(document, status, media_type=MEDIA_TYPE)


def _field(location: tuple[int | str, ...]) -> str:
    """The member's name as the caller wrote it: `content`, `web_search.enabled`, `body` for the whole."""
    source, *path = location
    # A syntax error's location is an offset in the text, not a member.
    names = [str(part) for part in path if not (source == "body" and isinstance(part, int) and len(path) == 1)]
    return ".".join(names) or str(source)
