"""What a route asks for, as annotated parameters."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from starlette.requests import Request

from minichat.domain.identity import Call, ChatId, RequestId
from minichat.http.auth import Authenticator
from minichat.http.paging import CursorCodec
from minichat.moment import new_id, now
from minichat.observability import measured, note
from minichat.services.generate import Machine
from minichat.services.rules import Rules


@dataclass(frozen=True, slots=True)
class App:
    """What one process's app is made of; built once by `create_app`."""

    machine: Machine
    authenticator: Authenticator
    cursors: CursorCodec

    @property
    def rules(self) -> Rules:
        """Settings and policy."""
        return self.machine.rules


async def _app(request: Request) -> App:
    app: App = request.app.state.minichat
    return app


async def _call(request: Request) -> Call:
    app = await _app(request)
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
