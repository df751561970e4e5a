"""The app of a process: the buffered routes, the streaming ones, or both. Every mode runs the same app."""

import warnings
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from enum import Flag, auto

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic.warnings import UnsupportedFieldAttributeWarning
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minichat import __version__
from minichat.domain.errors import ChatError
from minichat.http import cors, openai, problems
from minichat.http.auth import Authenticator
from minichat.http.deps import AppDeps
from minichat.http.edge import Edge
from minichat.http.paging import CursorCodec
from minichat.http.refusal_notes import RefusedRequest
from minichat.moment import now
from minichat.providers.registry import Providers
from minichat.services import generate
from minichat.services.decision_point import DecisionPoint
from minichat.services.policy_in_force import InForce
from minichat.services.providers_in_force import ProvidersInForce
from minichat.settings import Settings
from minichat.storage.items import connect

STOP_SECONDS = 5
"""How long a stopping process waits for its running answers to be stored as cancelled."""


class ServedPart(Flag):
    """Which routes an app serves."""

    BUFFERED = auto()
    STREAMING = auto()


BUFFERED, STREAMING = ServedPart.BUFFERED, ServedPart.STREAMING


def routers(parts: ServedPart) -> Iterator[APIRouter]:
    """The routers of these parts, imported only when they are asked for."""
    if BUFFERED in parts:
        from minichat.http import console  # noqa: PLC0415
        from minichat.http.routes import (  # noqa: PLC0415
            attachments,
            chats,
            docs_page,
            exports,
            message_list,
            models,
            quota,
            reactions,
            service,
            turns,
            usage,
        )

        yield from (chats.router, message_list.router, reactions.router, turns.router, attachments.router)
        yield from (models.router, quota.router, usage.router, exports.router, service.router)
        yield from (docs_page.router, console.router)
    if STREAMING in parts:
        from minichat.http.routes import streamed_turns  # noqa: PLC0415

        yield streamed_turns.router


def create_app(settings: Settings, parts: ServedPart = BUFFERED | STREAMING) -> Edge | CORSMiddleware:
    """The app of this deployment, connected to its tables (no network is used yet).

    Raises SettingsError when the policy is wrong; ValueError without a cursor secret, where there are lists.
    """
    return assembled(settings, routers(parts), "/v1", with_lists=BUFFERED in parts, with_door=STREAMING in parts)


def assembled(
    settings: Settings, served: Iterable[APIRouter], prefix: str, *, with_lists: bool, with_door: bool = False
) -> Edge | CORSMiddleware:
    """An app of these routers, all below the deployment's prefix and this one; each refuses in the same words.
    `with_door` adds the door for OpenAI's own clients, which has a prefix and words of its own.

    Raises as `create_app` does.
    """
    # FastAPI mutes this where it makes the validator of a body; ours are made later, when they are first used.
    warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)
    connect(settings.store, on_loop=True)
    entries = ProvidersInForce(settings)
    machine = generate.AnswerDeps(settings, Providers(entries.entries_of), now)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=_lifespan, redirect_slashes=False)
    codec = CursorCodec(settings.cursor_secret.get_secret_value()) if with_lists else None
    app.state.minichat = AppDeps(
        machine, InForce(settings), entries, Authenticator(settings.auth), DecisionPoint(settings), codec
    )
    app.state.refused = RefusedRequest()
    app.add_route("/", _who_answers)
    for router in served:
        app.include_router(router, prefix=f"{settings.url_prefix}{prefix}")
    openai_at = _with_door(app, settings.url_prefix) if with_door else ""
    app.add_exception_handler(ChatError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_exception_handler(Exception, _failed)
    # Outermost, or a page from another origin could not read the failures of the app within.
    edge = Edge(app, settings.metrics_namespace, f"{settings.url_prefix}{prefix}", openai_at)
    return cors.allowing(settings.cors.allowed_origins, edge)


def _with_door(app: FastAPI, url_prefix: str) -> str:
    from minichat.http.openai import door  # noqa: PLC0415

    app.include_router(door.router, prefix=(at := f"{url_prefix}{openai.PREFIX}"))
    return at


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """At shutdown, ends every running answer properly."""
    state: AppDeps = app.state.minichat
    yield
    await generate.stop_all(STOP_SECONDS)
    await state.machine.providers.aclose()


async def _who_answers(request: Request) -> Response:
    """Which product this is, and where to go on, as seen from here: whatever is before our paths stays there."""
    settings: Settings = request.app.state.minichat.settings
    api, openai_api = (f"{settings.url_prefix}{one}".lstrip("/") for one in ("/v1", openai.PREFIX))
    return JSONResponse(
        {
            "name": "Mini Chat",
            "version": __version__,
            "api": api,
            "openapi": f"{api}/openapi.json",
            "openai": openai_api,
            **({"docs": f"{api}/docs"} if settings.docs_page else {}),
            "health": f"{api}/health",
            "documentation": "README.md and docs/ of the source",
        }
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChatError)
    await request.app.state.refused.note(request, error)
    return problems.of_error(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problems.of_validation(request, error)


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problems.of_framework(request, error)


async def _failed(request: Request, _error: Exception) -> Response:
    return problems.of_failure(request)
