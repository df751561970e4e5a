"""What a route asks for, as annotated parameters."""

import time
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from minichat.domain.identity import Call, ChatId, RequestId
from minichat.http.auth import Authenticator
from minichat.http.paging import CursorCodec
from minichat.moment import new_id, now
from minichat.observability import measured, note
from minichat.services.generate import Machine
from minichat.services.rules import InForce, Rules
from minichat.settings import Settings


@dataclass(frozen=True, slots=True)
class App:
    """What one process's app is made of; built once by `create_app`."""

    machine: Machine
    in_force: InForce
    authenticator: Authenticator
    cursors: CursorCodec

    @property
    def rules(self) -> Rules:
        """Settings and the policy in force: take it once per call, for it changes."""
        return self.in_force.rules

    @property
    def settings(self) -> Settings:
        """What the deployment chose."""
        return self.machine.settings


async def _app(request: Request) -> App:
    app: App = request.app.state.minichat
    if app.in_force.is_due(moment := time.monotonic()):
        with measured("policy"):
            await run_in_threadpool(app.in_force.look, moment)
    return app


async def _call(request: Request) -> Call:
    app: App = request.app.state.minichat
    with measured("auth"):
        caller = await app.authenticator.caller(request)
    note(tenant_id=caller.tenant_id)
    return Call(caller, now(), new_id, request.state.trace_id)


async def _chat_id(chat_id: UUID) -> ChatId:
    note(chat_id=str(chat_id))
    return ChatId(str(chat_id))


async def _request_id(request_id: UUID) -> RequestId:
    note(request_id=str(request_id))
    return RequestId(str(request_id))


TheApp = Annotated[App, Depends(_app)]
TheCall = Annotated[Call, Depends(_call)]
TheChat = Annotated[ChatId, Depends(_chat_id)]
TheTurn = Annotated[RequestId, Depends(_request_id)]
