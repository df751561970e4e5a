"""The operations that answer with a stream: send, retry, edit, and resume.

Every refusal comes before the first byte, as a problem document: the service call commits first, then the stream opens.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends
from starlette.responses import Response, StreamingResponse

from minichat import greenlets
from minichat.domain import errors
from minichat.domain.identity import AttachmentId, Call, ChatId, RequestId
from minichat.domain.turn import Turn
from minichat.http import sse
from minichat.http.acting import acts
from minichat.http.deps import AppDeps, Authenticated, LastEventId, Position, TheApp, TheCall, TheChat, TheTurn
from minichat.http.problems import MUTATION_ERRORS, documented
from minichat.http.request_models import EditTurnBody, SendMessageBody
from minichat.observability import note
from minichat.services import generate, mutate, repeated_turns
from minichat.services.new_turn import Replay, RunningTurn, SendMessage
from minichat.services.send import send
from minichat.services.stream_resume import Resumed, follow, replay, resume, resumed

router = APIRouter(tags=["turns"], route_class=Authenticated)

ADMISSION_ERRORS = (
    errors.WebSearchDisabled,
    errors.InvalidAttachment,
    errors.TooManyImages,
    errors.ImagesDisabled,
    errors.UnsupportedMedia,
    errors.InputTooLong,
    errors.ContextBudgetExceeded,
    errors.QuotaExceeded,
)
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `stream_started`, then `delta`, `tool` and `ping` as they come, at most "
        "one `citations`, and exactly one of `done` and `error`, which is the last.",
        "content": {sse.MEDIA_TYPE: {}},
    }
}


@router.post(
    "/chats/{chat_id}/messages:stream",
    dependencies=[acts("turn:send")],
    response_class=StreamingResponse,
    responses=STREAM
    | documented(
        errors.ChatNotFound,
        errors.RequestIdConflict,
        errors.RequestIdReused,
        errors.GenerationInProgress,
        *ADMISSION_ERRORS,
    ),
)
async def send_message(
    call: TheCall, app: TheApp, chat_id: TheChat, body: SendMessageBody, last_event_id: LastEventId = None
) -> Response:
    """Sends a message and streams its answer; a completed turn's `request_id` replays that turn.

    `Last-Event-ID` repeats a send whose stream was cut: what follows that event is streamed.
    """
    command = SendMessage(
        chat_id=chat_id,
        content=body.content,
        request_id=RequestId(str(body.request_id or uuid4())),
        attachment_ids=tuple(AttachmentId(str(attachment_id)) for attachment_id in body.attachment_ids or ()),
        web_search=body.web_search is not None and body.web_search.enabled,
    )
    find = repeated_turns.by_message if body.request_id is None else repeated_turns.by_request_id
    rest = await _rest(call, app, last_event_id, partial(find, call, command, app.settings))
    return rest or await _answered(call, app, partial(send, call, command, app.rules_of(call.caller)))


@router.post(
    "/chats/{chat_id}/turns/{request_id:item}:retry", dependencies=[acts("turn:retry")], include_in_schema=False
)
@router.post(
    "/chats/{chat_id}/turns/{request_id:item}/retry",
    dependencies=[acts("turn:retry")],
    response_class=StreamingResponse,
    responses=STREAM | documented(*MUTATION_ERRORS, *ADMISSION_ERRORS),
)
async def retry_turn(
    call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn, last_event_id: LastEventId = None
) -> Response:
    """Answers the latest turn's message again; the new turn takes its place. Also at `…/turns/{request_id}:retry`.

    `Last-Event-ID` as for a send.
    """
    rest = await _rest(
        call, app, last_event_id, partial(repeated_turns.by_target, call, chat_id, request_id, None, app.settings)
    )
    return rest or await _answered(
        call, app, partial(mutate.retry, call, chat_id, request_id, _new_request_id(), app.rules_of(call.caller))
    )


@router.patch(
    "/chats/{chat_id}/turns/{request_id:item}",
    dependencies=[acts("turn:edit")],
    response_class=StreamingResponse,
    responses=STREAM | documented(*MUTATION_ERRORS, *ADMISSION_ERRORS),
)
async def edit_turn(  # noqa: PLR0913, PLR0917  one for each thing that the request says
    call: TheCall,
    app: TheApp,
    chat_id: TheChat,
    request_id: TheTurn,
    body: EditTurnBody,
    last_event_id: LastEventId = None,
) -> Response:
    """Replaces the latest turn's message and answers the new one. `Last-Event-ID` as for a send."""
    command = SendMessage(ChatId(chat_id), body.content, _new_request_id())
    rest = await _rest(
        call,
        app,
        last_event_id,
        partial(repeated_turns.by_target, call, chat_id, request_id, body.content, app.settings),
    )
    return rest or await _answered(
        call, app, partial(mutate.edit, call, request_id, command, app.rules_of(call.caller))
    )


@router.get(
    "/chats/{chat_id}/turns/{request_id:item}/stream",
    dependencies=[acts("turn:resume")],
    response_class=StreamingResponse,
    responses=STREAM
    | {204: {"description": "The client has every event, the terminal one too: an `EventSource` stops here."}}
    | documented(errors.ChatNotFound, errors.TurnNotFound),
)
async def resume_turn(
    call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn, position: Annotated[Position, Depends()]
) -> Response:
    """Resumes a turn's stream after the last event that the client has, and follows a running turn to its end."""
    found = await greenlets.run(resume, call, chat_id, request_id, position.last, app.settings)
    return Response(status_code=204) if found.is_over else _followed(call, app, found)


async def _rest(call: Call, app: AppDeps, after: int | None, find: Callable[[], Turn | None]) -> Response | None:
    """The rest of a stream, for a request repeated with `Last-Event-ID`; None when there is none."""
    if after is None:
        return None

    def found() -> Resumed | None:
        turn = find()
        return None if turn is None else resumed(call, turn, after, app.settings)

    rest = await greenlets.run(found)
    # A client that has everything gets an empty stream, not a 204: libraries that repeat requests take a 204 for a
    # failure, and repeat for ever.
    return None if rest is None else _followed(call, app, rest)


async def _answered(call: Call, app: AppDeps, admission: Callable[[], RunningTurn | Replay]) -> Response:
    outcome = await generate.admitted(greenlets.run(admission), call, app.machine)
    if isinstance(outcome, Replay):
        return _followed(call, app, replay(call, outcome.turn, app.settings))
    note(request_id=outcome.turn.request_id, turn_id=outcome.turn.turn_id, replay=False)
    events = outcome.channel.read(app.settings.streaming.ping_interval_seconds)
    return sse.EventStream(sse.encoded(events), on_end=outcome.channel.leave)


def _followed(call: Call, app: AppDeps, found: Resumed) -> Response:
    note(request_id=found.turn.request_id, turn_id=found.turn.turn_id, replay=found.replay)
    return sse.EventStream(sse.encoded(follow(call, found, app.settings, app.machine.clock)))


def _new_request_id() -> RequestId:
    return RequestId(str(uuid4()))
