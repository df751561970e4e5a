"""What a refusal leaves behind besides its response: fields of the log line, a metric, and an audit event.

None of it may make the response fail.
"""

from uuid import UUID

from starlette.requests import Request

from minichat.domain import errors
from minichat.domain.identity import Caller
from minichat.moment import now
from minichat.observability import count, note
from minichat.services import refusal_audit


class RefusedRequest:
    """Notes on the refusals of one process."""

    def __init__(self) -> None:
        self._audit = refusal_audit.RefusalTeller()

    async def note(self, request: Request, error: errors.ChatError) -> None:
        """Notes why a request was refused."""
        match error:
            case errors.Forbidden() | errors.FeatureNotLicensed():
                count("authz_denied_total", code=error.code)
            case errors.RateLimited(scope=scope, whose=whose):
                count("rate_limited_total", scope=scope, whose=whose)
            case errors.Unauthenticated(reason=reason):
                note(reason=reason)
            case errors.ServiceUnavailable():
                note(cause=_cause(error))
        licensed = error.caller if isinstance(error, errors.FeatureNotLicensed) else None
        caller: Caller | None = licensed or getattr(request.state, "caller", None)
        if caller is not None and (refusal := refusal_audit.of_error(error, caller, _chat_id(request))) is not None:
            note(tenant_id=caller.tenant_id)
            note(refusal_event=await self._audit.tell(refusal, now(), request.state.trace_id))


def _chat_id(request: Request) -> str | None:
    """The chat that the path names, even if nothing has read it yet."""
    try:
        return str(UUID(request.path_params.get("chat_id", "")))
    except ValueError:
        return None


def _cause(error: errors.ServiceUnavailable) -> str:
    """What did not answer, in the words of whatever noticed it; for the log only."""
    causes: list[BaseException] = [error]
    while (deeper := _deeper(causes[-1])) is not None and deeper not in causes:
        causes.append(deeper)
    if causes != [error]:
        return " < ".join(map(_name, causes[1:]))
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "unknown" if last is None else last.tb_frame.f_code.co_qualname


def _deeper(error: BaseException) -> BaseException | None:
    # pynamodb keeps the underlying error in an attribute of its own.
    below = getattr(error, "cause", None)
    known = error.__cause__ or (below if isinstance(below, BaseException) else None)
    return known or (error.__context__ if isinstance(error, errors.ServiceUnavailable) else None)


def _name(error: BaseException) -> str:
    """The kind of an error, with AWS's word for it where it has one: `ThrottlingException`."""
    said = getattr(error, "response", None)
    code = said.get("Error", {}).get("Code") if isinstance(said, dict) else None
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"
