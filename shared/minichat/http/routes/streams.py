"""The operations that answer with a stream: send, retry, edit, and resume.

Everything that can be refused is refused before the first byte, as a problem document: the service call commits first,
then the stream opens.
"""

from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from minichat.domain import errors
from minichat.domain.identity import AttachmentId, Call, ChatId, RequestId
from minichat.http import sse
from minichat.http.bodies import EditTurnBody, SendMessageBody
from minichat.http.deps import App, Authenticated, Position, TheApp, TheCall, TheChat, TheTurn
from minichat.http.problems import MUTATION_ERRORS, documented
from minichat.observability import note
from minichat.services import generate, mutate
from minichat.services.resume import follow, resume
from minichat.services.send import Replay, Running, SendMessage, send

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
        "content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/chats/{chat_id}/messages:stream",
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
async def send_message(call: TheCall, app: TheApp, chat_id: TheChat, body: SendMessageBody) -> StreamingResponse:
    """Sends a message and streams its answer; a completed turn's `request_id` replays that turn."""
    command = SendMessage(
        chat_id=chat_id,
        content=body.content,
        request_id=RequestId(str(body.request_id or uuid4())),
        attachment_ids=tuple(AttachmentId(str(attachment_id)) for attachment_id in body.attachment_ids or ()),
        web_search=body.web_search is not None and body.web_search.enabled,
    )
    return _stream(call, app, await run_in_threadpool(send, call, command, app.rules))


@router.post("/chats/{chat_id}/turns/{request_id}:retry", include_in_schema=False)
@router.post(
    "/chats/{chat_id}/turns/{request_id}/retry",
    response_class=StreamingResponse,
    responses=STREAM | documented(*MUTATION_ERRORS, *ADMISSION_ERRORS),
)
async def retry_turn(call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn) -> StreamingResponse:
    """Answers the latest turn's message again; the new turn takes its place. Also as `…/turns/{request_id}:retry`."""
    running = await run_in_threadpool(mutate.retry, call, chat_id, request_id, _new_request_id(), app.rules)
    return _stream(call, app, running)


@router.patch(
    "/chats/{chat_id}/turns/{request_id}",
    response_class=StreamingResponse,
    responses=STREAM | documented(*MUTATION_ERRORS, *ADMISSION_ERRORS),
)
async def edit_turn(
    call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn, body: EditTurnBody
) -> StreamingResponse:
    """Replaces the latest turn's message and answers the new one."""
    command = SendMessage(ChatId(chat_id), body.content, _new_request_id())
    return _stream(call, app, await run_in_threadpool(mutate.edit, call, request_id, command, app.rules))


@router.get(
    "/chats/{chat_id}/turns/{request_id}/stream",
    response_class=StreamingResponse,
    responses=STREAM
    | {204: {"description": "The client has every event, the terminal one too: an `EventSource` stops here."}}
    | documented(errors.ChatNotFound, errors.TurnNotFound),
)
async def resume_stream(
    call: TheCall, app: TheApp, chat_id: TheChat, request_id: TheTurn, position: Annotated[Position, Depends()]
) -> Response:
    """Tells a turn's stream again after the last event that the client has, and follows a running turn to its end."""
    resumed = await run_in_threadpool(resume, call, chat_id, request_id, position.last, app.settings)
    if resumed.is_over:
        return Response(status_code=204)
    events = follow(call, resumed, app.settings, app.machine.clock)
    return StreamingResponse(sse.encoded(events), headers=sse.HEADERS, media_type=sse.MEDIA_TYPE)


def _stream(call: Call, app: App, outcome: Running | Replay) -> StreamingResponse:
    note(request_id=outcome.turn.request_id, turn_id=outcome.turn.turn_id, replay=isinstance(outcome, Replay))
    if isinstance(outcome, Replay):
        events = generate.replay(outcome)
    else:
        # The answer is begun here and not when the response is first read: a client that has already left must not
        # leave a running turn behind that nobody answers.
        channel = generate.begin(call, outcome, app.machine)
        events = channel.read(app.settings.streaming.ping_interval_seconds)
    return StreamingResponse(sse.encoded(events), headers=sse.HEADERS, media_type=sse.MEDIA_TYPE)


def _new_request_id() -> RequestId:
    return RequestId(str(uuid4()))
