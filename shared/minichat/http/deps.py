"""The dependencies of routes, as annotated parameters."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import wraps
from inspect import iscoroutinefunction
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Query, params
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from minichat import greenlets
from minichat.domain.identity import Call, Caller, ChatId, RequestId, TenantId
from minichat.http.acting import action_of, without_actions
from minichat.http.auth import Authenticator
from minichat.http.paging import CursorCodec
from minichat.moment import new_id, now
from minichat.observability import measured, note
from minichat.services.decision_point import Asked, DecisionPoint
from minichat.services.generate import AnswerDeps
from minichat.services.policy_in_force import InForce, Rules
from minichat.services.providers_in_force import ProvidersInForce
from minichat.settings import Settings

MAX_EVENT_ID = 10**9


class _Item(StringConvertor):
    """An id in a path, where the same place can hold `uploads` or `ID:retry`."""

    regex = "(?!uploads$)[^/:]+"


register_url_convertor("item", _Item())


@dataclass(frozen=True, slots=True)
class AppDeps:
    """The parts of one process's app; built once by `create_app`."""

    machine: AnswerDeps
    in_force: InForce
    entries: ProvidersInForce
    authenticator: Authenticator
    decision_point: DecisionPoint
    codec: CursorCodec | None
    """None where no lists are served: a function gets no secret that it does not use."""

    @property
    def cursors(self) -> CursorCodec:
        """The codec that signs and verifies the cursors of lists."""
        assert self.codec is not None, "this app serves no lists"
        return self.codec

    def rules_of(self, caller: Caller) -> Rules:
        """Settings, with the providers in force, and the policy in force for the caller's tenant: take it once per
        call, because it changes.

        A user's own layer comes with what the call reads: `Rules.of_user`.
        """
        return replace(self.in_force.rules_of(caller.tenant_id), settings=self.entries.settings)

    @property
    def settings(self) -> Settings:
        """What the deployment chose."""
        return self.machine.settings


async def _app(request: Request) -> AppDeps:
    app: AppDeps = request.app.state.minichat
    return app


def _due(app: AppDeps, tenant_id: TenantId) -> list[Awaitable[object]]:
    """The looks at the tenant's policy and providers for which it is time again: rarely one."""
    looks: list[Awaitable[object]] = []
    if app.in_force.is_due(tenant_id, moment := time.monotonic()):
        looks.append(app.in_force.looked(tenant_id, moment))
    if app.entries.is_due(tenant_id, moment):
        looks.append(greenlets.run(app.entries.entries_of, tenant_id))
    return looks


async def _looked(looks: Sequence[Awaitable[object]]) -> None:
    with measured("policy"):
        await asyncio.gather(*looks)


def _on_loop(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    if iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    async def on_loop(*args: Any, **kwargs: Any) -> Any:
        return await greenlets.run(endpoint, *args, **kwargs)

    return on_loop


class Authenticated(APIRoute):
    """A route that checks the token, and that the caller may do its action at all, before it reads anything else of
    the request.

    A plain function as endpoint runs on the event loop, and yields to it while it waits for the store.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        dependencies: Sequence[params.Depends] | None = None,
        **options: Any,
    ) -> None:
        self.action = action_of(dependencies or ())
        # An action is nothing to call: FastAPI need not prepare it at each cold start, nor solve it at each request.
        super().__init__(path, _on_loop(endpoint), dependencies=without_actions(dependencies or ()), **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler behind the authenticator, which refuses before the body is checked."""
        handle = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            app: AppDeps = request.app.state.minichat
            with measured("auth"):
                caller = await app.authenticator.caller(request)
            note(tenant_id=caller.tenant_id)
            request.state.caller = caller
            asked = Asked(self.action, _chat_of(request), request.state.trace_id)
            admitting = app.decision_point.admitted(caller, asked)
            if looks := _due(app, caller.tenant_id):
                # What a tenant's policies say costs no time of its own: all is read at once.
                request.state.caller, _ = await asyncio.gather(admitting, _looked(looks))
            else:
                request.state.caller = await admitting
            return await handle(request)

        return authenticated


def _chat_of(request: Request) -> ChatId | None:
    """The chat that the path names, whether or not there is one."""
    named: str | None = request.path_params.get("chat_id")
    return None if named is None else ChatId(named)


TheApp = Annotated[AppDeps, Depends(_app)]


async def _call(request: Request) -> Call:
    """The call, timed by the store's clock, which even a new process knows from reading the policy."""
    instant = now()
    # Lambda says when the invocation ends, by its own clock; a server on one machine does not.
    deadline_ms = request.scope["state"].get("deadline_ms")
    ends_at = None if deadline_ms is None else instant + timedelta(seconds=deadline_ms / 1000 - time.time())
    return Call(request.state.caller, instant, new_id, request.state.trace_id, ends_at)


LastEventId = Annotated[
    int | None,
    Header(ge=0, le=MAX_EVENT_ID, description="The `id` of the last event of the stream that the client has."),
]


@dataclass(frozen=True, slots=True)
class Position:
    """A client's place in a stream: the `id` of the last event that it has, 0 for none. The header wins."""

    last_event_id: LastEventId = None
    after: Annotated[int | None, Query(ge=0, le=MAX_EVENT_ID)] = None

    @property
    def last(self) -> int:
        """The id of the last event."""
        return next((given for given in (self.last_event_id, self.after) if given is not None), 0)


async def _chat_id(chat_id: UUID) -> ChatId:
    note(chat_id=str(chat_id))
    return ChatId(str(chat_id))


async def _request_id(request_id: UUID) -> RequestId:
    note(request_id=str(request_id))
    return RequestId(str(request_id))


IdempotencyKey = Annotated[str | None, Header(pattern=r"^[\x21-\x7e]{1,255}$")]
TheCall = Annotated[Call, Depends(_call)]
TheChat = Annotated[ChatId, Depends(_chat_id)]
TheTurn = Annotated[RequestId, Depends(_request_id)]
