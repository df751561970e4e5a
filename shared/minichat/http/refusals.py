"""What a refusal leaves behind besides its answer: words for the log line, a metric, and an audit event.

None of it may fail the answer or hold it up: the event is waited for as long as a healthy store needs, and written by a
few threads at most, whatever comes.
"""

import asyncio
from uuid import UUID

from starlette.requests import Request

from minichat.domain import errors
from minichat.domain.identity import Caller
from minichat.moment import now
from minichat.observability import count, logger, note
from minichat.services import refusal_audit

WAIT_SECONDS = 0.5
"""How long an answer waits for its event to be out: a function may be frozen with its answer."""
AT_ONCE = 8
"""Events that a process writes at the same time; a refusal beyond them leaves none."""


class RefusedRequest:
    """The refusals of one process."""

    def __init__(self) -> None:
        self._told = refusal_audit.RefusalTeller()
        self._writing: set[asyncio.Task[bool]] = set()

    async def note(self, request: Request, error: errors.ChatError) -> None:
        """Notes why a request was refused."""
        match error:
            case errors.Forbidden() | errors.FeatureNotLicensed():
                count("authz_denied_total", code=error.code)
            case errors.Unauthenticated(reason=reason):
                note(reason=reason)
            case errors.ServiceUnavailable():
                note(cause=_cause(error))
        licensed = error.caller if isinstance(error, errors.FeatureNotLicensed) else None
        caller: Caller | None = licensed or getattr(request.state, "caller", None)
        if caller is not None and (refusal := refusal_audit.of_error(error, caller, _chat_id(request))) is not None:
            await self._tell(refusal, request.state.trace_id)

    async def _tell(self, refusal: refusal_audit.Refusal, trace_id: str) -> None:
        note(tenant_id=refusal.caller.tenant_id)
        if len(self._writing) >= AT_ONCE:
            note(refusal_event="dropped")
            return
        task = asyncio.create_task(asyncio.to_thread(self._told.tell, refusal, now(), trace_id))
        self._writing.add(task)
        task.add_done_callback(self._written)
        done, _ = await asyncio.wait({task}, timeout=WAIT_SECONDS)
        if not done or task.exception() is not None:
            note(refusal_event="late" if not done else "lost")
            return
        note(refusal_event="written" if task.result() else "known")

    def _written(self, task: asyncio.Task[bool]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.error("a refusal left no audit event", exc_info=problem)


def _chat_id(request: Request) -> str | None:
    """The chat that the path names, also where nobody has looked at it yet."""
    try:
        return str(UUID(request.path_params.get("chat_id", "")))
    except ValueError:
        return None


def _cause(error: errors.ServiceUnavailable) -> str:
    """What did not answer, in the words of whatever noticed it: for the log alone."""
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
    # pynamodb has an attribute of its own for what was below it.
    below = getattr(error, "cause", None)
    known = error.__cause__ or (below if isinstance(below, BaseException) else None)
    return known or (error.__context__ if isinstance(error, errors.ServiceUnavailable) else None)


def _name(error: BaseException) -> str:
    """The kind of an error, with AWS's word for it where it has one: `ThrottlingException`."""
    said = getattr(error, "response", None)
    code = said.get("Error", {}).get("Code") if isinstance(said, dict) else None
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"
