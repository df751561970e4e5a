"""The operations of the door for OpenAI's own clients (docs/openai.md). All stream, or may."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minichat import greenlets
from minichat.domain.errors import FieldError, InvalidRequest, ServiceUnavailable, TurnNotFound
from minichat.domain.identity import Call, ChatId, RequestId
from minichat.domain.policy import Model, Policy
from minichat.domain.turn import TurnState, readable
from minichat.http import sse
from minichat.http.acting import acts
from minichat.http.deps import MAX_EVENT_ID, AppDeps, Authenticated, IdempotencyKey, TheApp, TheCall
from minichat.http.openai import completions_request, error_shape, ids, responses_request
from minichat.http.openai.begun import Again, Begun, begun, followed, told_again
from minichat.http.openai.completion_chunks import CompletionChunks
from minichat.http.openai.parameters import refuse
from minichat.http.openai.response_events import ResponseEvents, response_of
from minichat.observability import note
from minichat.services import mutate
from minichat.services.cancel import cancel
from minichat.services.orphans import read_and_repair
from minichat.services.stream_resume import replay, resumed
from minichat.storage import policies

CANCEL_SECONDS = 5.0
"""How long a cancelled response is waited for."""

router = APIRouter(route_class=Authenticated, include_in_schema=False)

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_PING = b": ping\n\n"


async def _body(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise InvalidRequest(FieldError("body", "The body is no JSON.", "invalid_json")) from None


async def _again(
    idempotency_key: IdempotencyKey = None,
    x_stainless_retry_count: Annotated[str | None, Header()] = None,
) -> Again:
    count = x_stainless_retry_count or ""
    return Again(idempotency_key, int(count) if count.isdecimal() and len(count) < 5 else 0)


async def _named(response_id: str) -> tuple[ChatId, RequestId]:
    found = ids.turn_of(response_id)
    if found is None:
        raise TurnNotFound
    note(chat_id=found[0], request_id=found[1])
    return found


TheBody = Annotated[Any, Depends(_body)]
TheAgain = Annotated[Again, Depends(_again)]
TheResponse = Annotated[tuple[ChatId, RequestId], Depends(_named)]


@router.post("/responses", dependencies=[acts("turn:send")])
async def create_response(call: TheCall, app: TheApp, body: TheBody, again: TheAgain) -> Response:
    """A response, streamed or whole; one in the background is told at once, and goes on."""
    asked = responses_request.read(body)
    made = await begun(call, app, asked, again)
    events = _events_of(made)
    if asked.stream:
        return _streamed(made, events, after=-1)
    if asked.background:
        made.leave()
        return JSONResponse(events.response)
    return JSONResponse((await _collected(call, app, made, lambda: _events_of(made))).response)


@router.post("/chat/completions", dependencies=[acts("turn:send")])
async def create_completion(call: TheCall, app: TheApp, body: TheBody, again: TheAgain) -> Response:
    """A chat completion, streamed or whole, in a temporary chat."""
    asked = completions_request.read(body)
    made = await begun(call, app, asked, again)
    if asked.stream:
        chunks = CompletionChunks(made.turn, include_usage=asked.include_usage)
        return sse.EventStream(_chunked(made, chunks), on_end=made.leave)
    chunks = await _collected(call, app, made, lambda: CompletionChunks(made.turn, include_usage=False))
    if chunks.failed is not None:
        return error_shape.of_failure(*chunks.failed)
    if not chunks.is_over:
        raise ServiceUnavailable
    return JSONResponse(chunks.completion)


@router.get("/responses/{response_id}", dependencies=[acts("turn:read")])
async def get_response(call: TheCall, app: TheApp, where: TheResponse, request: Request) -> Response:
    """A response as it stands, or its events after one of them, followed to its end."""
    stream, after = _wished(request)
    if not stream:
        return JSONResponse(await _as_it_stands(call, app, where))
    # Another action than the route's: what a stream tells is more than a look.
    call = replace(call, caller=replace(call.caller, action="turn:resume"))
    chat, turn = await greenlets.run(read_and_repair, call, *where, app.settings)
    found = await greenlets.run(resumed, call, readable(turn), 0, app.settings)
    if after >= 0 and not found.kept:
        refuse("starting_after", "Single events are no longer kept: fetch the response whole.", "expired")
    made = followed(call, app, found, is_temporary=chat.is_temporary)
    return _streamed(made, _events_of(made), after=after)


@router.post("/responses/{response_id}/cancel", dependencies=[acts("turn:cancel")])
async def cancel_response(call: TheCall, app: TheApp, where: TheResponse) -> Response:
    """The response, stopped; one that has ended stays as it is."""
    turn = await greenlets.run(cancel, call, *where, app.settings)
    until = time.monotonic() + CANCEL_SECONDS
    while turn.state is TurnState.RUNNING and time.monotonic() < until:
        await asyncio.sleep(app.settings.streaming.follow_interval_seconds)
        turn = readable((await greenlets.run(read_and_repair, call, *where, app.settings))[1])
    return JSONResponse(await _as_it_stands(call, app, where))


@router.delete("/responses/{response_id}", dependencies=[acts("turn:delete")])
def delete_response(call: TheCall, app: TheApp, where: TheResponse) -> Response:
    """Deletes the latest response of a conversation, with its message."""
    mutate.delete(call, *where, app.settings)
    return JSONResponse({"id": ids.response_id(*where), "object": "response", "deleted": True})


@router.get("/models", dependencies=[acts("model:list")])
def list_models(call: TheCall, app: TheApp) -> Response:
    """Every model that the caller may choose."""
    return JSONResponse({"object": "list", "data": [_model(model) for model in _policy(call, app).enabled_models()]})


@router.get("/models/{model_id:path}", dependencies=[acts("model:list")])
def get_model(call: TheCall, app: TheApp, model_id: str) -> Response:
    """One model that the caller may choose."""
    return JSONResponse(_model(_policy(call, app).model(model_id)))


def _policy(call: Call, app: AppDeps) -> Policy:
    layer = policies.layer_of(call.caller.tenant_id, call.caller.user_id)
    return app.rules_of(call.caller).of_user(layer).policy


def _model(model: Model) -> dict[str, Any]:
    since = model.general_config.available_from
    created = 0 if since is None else int(since.timestamp())
    return {"id": model.id, "object": "model", "created": created, "owned_by": "minichat"}


def _wished(request: Request) -> tuple[bool, int]:
    """Whether the events are wanted, and the number after which; -1 for all. Raises InvalidRequest."""
    said = request.query_params
    for name in said:
        if name == "include" or name.startswith("include[") or (name, said[name]) == ("include_obfuscation", "true"):
            refuse("include", "Nothing can be included besides what is always told.")
        if name not in {"stream", "starting_after", "include_obfuscation"}:
            refuse(name, "Unknown parameter.", "unknown_parameter")
    stream, after = said.get("stream") == "true", said.get("starting_after")
    if after is None:
        return stream, -1
    if not stream:
        refuse("starting_after", "Only a stream is continued.", "invalid_value")
    if not after.isdecimal() or not 0 <= int(after) <= MAX_EVENT_ID * 10:
        refuse("starting_after", "The `sequence_number` of an event is expected.", "invalid_value")
    return stream, int(after)


def _events_of(made: Begun) -> ResponseEvents:
    return ResponseEvents(response_of(made.turn, is_temporary=made.is_temporary))


async def _as_it_stands(call: Call, app: AppDeps, where: tuple[ChatId, RequestId]) -> dict[str, Any]:
    chat, found = await greenlets.run(read_and_repair, call, *where, app.settings)
    turn = readable(found)
    response = response_of(turn, is_temporary=chat.is_temporary)
    if turn.state is TurnState.RUNNING:
        return response
    made = followed(call, app, replay(call, turn, app.settings), is_temporary=chat.is_temporary)
    told = await _read(made, ResponseEvents(response))
    completed_at = None if turn.completed_at is None else int(turn.completed_at.timestamp())
    return told.response | {"completed_at": completed_at}


T = TypeVar("T", ResponseEvents, CompletionChunks)


async def _collected(call: Call, app: AppDeps, made: Begun, fresh: Callable[[], T]) -> T:
    """A translator that has read the whole turn; from the start again, once, when its end was not told here."""
    told = await _read(made, fresh())
    return told if told.is_over else await _read(await told_again(call, app, made), fresh())


async def _read(made: Begun, into: T) -> T:
    async for some in made.events:
        for one in some:
            into.of(one)
    return into


def _streamed(made: Begun, events: ResponseEvents, *, after: int) -> Response:
    """The events as server-sent ones, those up to `after` left out."""

    async def frames() -> AsyncIterator[bytes]:
        async for some in made.events:
            told = [_event(one) for mine in some for one in events.of(mine) if one["sequence_number"] > after]
            yield b"".join(told) or _PING

    return sse.EventStream(frames(), on_end=made.leave)


async def _chunked(made: Begun, chunks: CompletionChunks) -> AsyncIterator[bytes]:
    async for some in made.events:
        yield b"".join(_data(one) for mine in some for one in chunks.of(mine)) or _PING
    if not chunks.is_over:
        yield _data({"error": error_shape.failure("internal_error", "The end of the answer was not told here.")})
    elif chunks.failed is None:
        yield b"data: [DONE]\n\n"


def _event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {_JSON.encode(event)}\n\n".encode()


def _data(chunk: dict[str, Any]) -> bytes:
    return f"data: {_JSON.encode(chunk)}\n\n".encode()
