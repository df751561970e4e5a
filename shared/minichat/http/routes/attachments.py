"""Attachments: give a file to a chat in one of two ways, follow its status, list and delete."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request

from minichat import greenlets
from minichat.domain import errors
from minichat.domain.chat import Chat
from minichat.domain.identity import AttachmentId
from minichat.http import listing
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, IdempotencyKey, TheApp, TheCall, TheChat
from minichat.http.multipart import FIELD, Uploaded, read_file
from minichat.http.prefer_wait import TheWait
from minichat.http.problems import documented
from minichat.http.request_models import AnnounceFile, ListAttachments
from minichat.http.response_models import AttachmentDetail, AttachmentUpload, Page, attachment_detail, attachment_upload
from minichat.observability import note
from minichat.services import attachments, chats

router = APIRouter(tags=["attachments"], route_class=Authenticated)

_REFUSALS = (
    errors.ChatNotFound,
    errors.AttachmentNotFound,
    errors.FileTooLarge,
    errors.UnsupportedFileType,
    errors.QuotaExceeded,
    errors.IdempotencyKeyConflict,
)
_WAITED: dict[str, Any] = {
    "headers": {
        "Preference-Applied": {
            "description": "How long the answer may have waited, where it was asked to.",
            "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
        }
    }
}
_MULTIPART: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "string",
                            "format": "binary",
                            "minLength": 1,
                            "description": "Its type, or its name, says what it is.",
                        }
                    },
                }
            }
        },
    }
}


async def _attachment_id(attachment_id: UUID) -> AttachmentId:
    note(attachment_id=str(attachment_id))
    return AttachmentId(str(attachment_id))


TheAttachment = Annotated[AttachmentId, Depends(_attachment_id)]


@dataclass(frozen=True, slots=True)
class Given:
    """An uploaded file, and its chat."""

    chat: Chat
    file: Uploaded


async def _given(request: Request, call: TheCall, chat_id: TheChat) -> Given:
    # The body is only read once the chat is known to be the caller's.
    chat = await greenlets.run(chats.get, call, chat_id)
    return Given(chat, await read_file(request))


@router.post(
    "/chats/{chat_id}/attachments",
    dependencies=[acts("attachment:create")],
    status_code=201,
    responses={**documented(*_REFUSALS), 201: _WAITED},
    openapi_extra=_MULTIPART,
)
async def upload_attachment(
    call: TheCall,
    app: TheApp,
    given: Annotated[Given, Depends(_given)],
    wait: TheWait,
    idempotency_key: IdempotencyKey = None,
) -> AttachmentDetail:
    """A file of up to 4,600,000 bytes, in the body's one part named `file`; larger ones: `…/attachments/uploads`.

    Its `status` is `pending` at first: poll until it is `ready` or `failed`, or let the response wait for that
    (`Prefer: wait=10`). With an `Idempotency-Key` the same call gives the same attachment for 24 hours; 404 once that
    was deleted.
    """
    came = given.file
    file = attachments.NewFile(came.filename, came.content_type, len(came.content), idempotency_key)
    added = await greenlets.run(attachments.add, call, given.chat, file, came.content, app.rules_of(call.caller))
    return attachment_detail(await attachments.settled(call, added, wait.seconds))


@router.post(
    "/chats/{chat_id}/attachments/uploads",
    dependencies=[acts("attachment:create")],
    status_code=201,
    responses=documented(*_REFUSALS),
)
def create_upload(
    call: TheCall, app: TheApp, chat_id: TheChat, body: AnnounceFile, idempotency_key: IdempotencyKey = None
) -> AttachmentUpload:
    """A form for uploading a file of any accepted size: once, within ten minutes.

    The file must have the announced size and type. Without a file the attachment ends `failed`.
    """
    chat = chats.get(call, chat_id)
    file = attachments.NewFile(body.filename, body.content_type, body.size_bytes, idempotency_key)
    attachment, form = attachments.announce(call, chat, file, app.rules_of(call.caller))
    return attachment_upload(attachment, form, app.settings.attachments.upload_seconds)


@router.get(
    "/chats/{chat_id}/attachments",
    dependencies=[acts("attachment:list")],
    responses=documented(errors.ChatNotFound, errors.InvalidCursor),
)
def list_attachments(
    request: Request, call: TheCall, app: TheApp, chat_id: TheChat, wish: Annotated[ListAttachments, Query()]
) -> Page[AttachmentDetail]:
    """The chat's attachments that are not deleted, the last added first. A page may be short and have a next one."""
    return listing.attachments(call, app.cursors, chat_id, listing.Query.of(request, wish.limit, wish.cursor))


@router.get(
    "/chats/{chat_id}/attachments/{attachment_id:item}",
    dependencies=[acts("attachment:read")],
    responses={**documented(errors.ChatNotFound, errors.AttachmentNotFound), 200: _WAITED},
)
async def get_attachment(
    call: TheCall, chat_id: TheChat, attachment_id: TheAttachment, wait: TheWait
) -> AttachmentDetail:
    """One attachment: poll until it is `ready` or `failed`, or let the response wait for that (`Prefer: wait=10`)."""
    found = await greenlets.run(attachments.get, call, chat_id, attachment_id)
    return attachment_detail(await attachments.settled(call, found, wait.seconds))


@router.delete(
    "/chats/{chat_id}/attachments/{attachment_id:item}",
    dependencies=[acts("attachment:delete")],
    status_code=204,
    responses=documented(errors.ChatNotFound, errors.AttachmentNotFound, errors.Forbidden, errors.AttachmentLocked),
)
def delete_attachment(call: TheCall, chat_id: TheChat, attachment_id: TheAttachment) -> None:
    """Deletes an attachment that no visible message has, and its file at the provider. Idempotent."""
    attachments.delete(call, chat_id, attachment_id)
