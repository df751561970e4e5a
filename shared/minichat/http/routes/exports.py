"""Exports of what is the caller's own: one chat, or everything."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from minichat.domain import errors, export
from minichat.domain.export import DataExport
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, TheApp, TheCall, TheChat
from minichat.http.export_views import ExportView, export_view, with_links
from minichat.http.problems import documented
from minichat.http.public_path import public_path
from minichat.services import exporting

router = APIRouter(tags=["exports"], route_class=Authenticated)


@router.post(
    "/chats/{chat_id}/exports",
    status_code=202,
    dependencies=[acts("chat:export")],
    responses=documented(errors.ChatNotFound, export.ExportRunning),
)
def export_chat(request: Request, response: Response, call: TheCall, app: TheApp, chat_id: TheChat) -> ExportView:
    """Begins to write a chat into files. It takes seconds as a rule; one of a user's exports is made at a time."""
    return _accepted(request, response, app, exporting.of_chat(call, chat_id, app.settings))


@router.post(
    "/exports",
    status_code=202,
    dependencies=[acts("export:create")],
    responses=documented(export.ExportRunning),
)
def export_own_data(request: Request, response: Response, call: TheCall, app: TheApp) -> ExportView:
    """Begins to write everything that is kept of the caller into files: chats, limits, quota and usage."""
    return _accepted(request, response, app, exporting.accept(call, call.caller.user_id, app.settings))


@router.get("/exports/{export_id}", dependencies=[acts("export:read")], responses=documented(export.ExportNotFound))
def get_export(call: TheCall, app: TheApp, export_id: str) -> ExportView:
    """How far an export is, and once it is ready, links to its files. Who has one can fetch the file with it."""
    return with_links(exporting.own(call, export_id), call.now, app.settings)


def _accepted(request: Request, response: Response, app: TheApp, made: DataExport) -> ExportView:
    response.headers["location"] = public_path(request, f"{app.settings.url_prefix}/v1/exports/{made.export_id}")
    return export_view(made, [])
