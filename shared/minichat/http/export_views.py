"""Exports as the API shows them, to users and to administrators."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from minichat.domain.export import DataExport
from minichat.services import exporting
from minichat.settings import Settings


class ExportFileView(BaseModel):
    """A file of an export, and a link that anybody can fetch it with, for a while."""

    name: str
    size_bytes: int
    url: str
    url_expires_at: datetime


class ExportView(BaseModel):
    """An export, and how far it is."""

    id: str
    scope: Literal["chat", "user", "tenant"]
    user_id: Annotated[str | None, Field(description="Whose data it has; null of a tenant.")]
    chat_id: str | None
    state: Annotated[
        Literal["running", "ready", "gone"],
        Field(
            description="`gone`: its chat was deleted before it was ready, or it was stopped; nothing of it is kept."
        ),
    ]
    requested_at: datetime
    ended_at: datetime | None
    expires_at: Annotated[datetime, Field(description="Until then it can be fetched.")]
    counts: Annotated[dict[str, int], Field(description="How many lines of each type are written so far.")]
    files: Annotated[
        list[ExportFileView], Field(description="Once it is ready: JSON Lines, and the manifest that lists them.")
    ]


class ExportList(BaseModel):
    """Exports, the oldest first; links are in each one itself."""

    items: list[ExportView]


def export_view(export: DataExport, links: list[exporting.ExportLink]) -> ExportView:
    """An export as it is shown, with these links."""
    return ExportView(
        id=export.export_id,
        scope=export.scope,
        user_id=export.user_id,
        chat_id=export.chat_id,
        state=export.state,
        requested_at=export.requested_at,
        ended_at=export.ended_at,
        expires_at=export.over_at,
        counts=dict(export.progress.counts),
        files=[
            ExportFileView(name=one.name, size_bytes=one.size, url=one.url, url_expires_at=one.until) for one in links
        ],
    )


def with_links(export: DataExport, now: datetime, settings: Settings) -> ExportView:
    """An export as it is shown, with links to its files once it is ready.

    Raises ServiceUnavailable.
    """
    return export_view(export, exporting.links(export, now, settings))
