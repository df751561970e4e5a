"""Attachments: two ways to give a file to a chat, how it stands, and its deletion (context-attachments-providers 3).

Both ways put the file into a bucket, whose event starts `services.ingest`.
"""

import asyncio
import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from minichat import greenlets
from minichat.domain.attachment import Attachment, AttachmentStatus
from minichat.domain.chat import Chat
from minichat.domain.chat_visibility import visible
from minichat.domain.errors import (
    AttachmentLocked,
    AttachmentNotFound,
    FieldError,
    Forbidden,
    InvalidRequest,
    ServiceUnavailable,
    UnsupportedFileType,
)
from minichat.domain.files import FileLimits, FileType, check_size, clean_name, is_what_it_says, type_of
from minichat.domain.identity import AttachmentId, Call, ChatId
from minichat.domain.policy import Model
from minichat.events.payloads import AttachmentCleanup, AttachmentExpected
from minichat.pauses import growing
from minichat.services import chats
from minichat.services.audit_details import attachment_deleted
from minichat.services.policy_in_force import Rules
from minichat.storage import attachment_steps, attachments, idempotency_keys, keys, objects, outbox
from minichat.storage.idempotency_keys import Once

DELETE_ATTEMPTS = 5
FIRST_LOOK_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 1.0
"""At most, between looks at an awaited attachment; each costs two read units."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file as its owner announces it: its name, its type, its size in bytes.

    With an idempotency key the same file makes the same attachment for 24 hours.
    """

    filename: str | None
    content_type: str
    size_bytes: int
    idempotency_key: str | None = None

    def once(self, content: bytes = b"") -> Once | None:
        """The key, and what differs when the file does."""
        if self.idempotency_key is None:
            return None
        digest = hashlib.sha256(content).hexdigest()
        return idempotency_keys.of(self.idempotency_key, self.filename, self.content_type, self.size_bytes, digest)


def add(call: Call, chat: Chat, file: NewFile, content: bytes, rules: Rules) -> Attachment:
    """A new, pending attachment whose file came with the request; or the one that the key made before, as it is now.

    Raises InvalidRequest, FileTooLarge, UnsupportedFileType, QuotaExceeded, ChatNotFound, IdempotencyKeyConflict,
    AttachmentNotFound (the key's was deleted), ServiceUnavailable.
    """
    file_type = _accepted(file, chat, rules)
    if not is_what_it_says(file_type, content):
        raise UnsupportedFileType("The file is not of its declared type.")
    made = _made(call, chat, file, file_type, rules)
    attachment = _stored(call, made, limits_of(chat, rules), rules, file.once(content))
    # If the process dies here, the attachment is given up when no file has come. A repeated request brings the file
    # again: the first call may have died here.
    if attachment.status is AttachmentStatus.PENDING:
        objects.put(_key(attachment), content, file_type.content_type)
    return attachment


def announce(call: Call, chat: Chat, file: NewFile, rules: Rules) -> tuple[Attachment, objects.Form]:
    """A new, pending attachment, and the form for posting its file.

    Raises as `add` does.
    """
    file_type = _accepted(file, chat, rules)
    made = _made(call, chat, file, file_type, rules)
    attachment = _stored(call, made, limits_of(chat, rules), rules, file.once())
    seconds = rules.settings.attachments.upload_seconds
    return attachment, objects.form(_key(attachment), file_type.content_type, file.size_bytes, seconds=seconds)


def get(call: Call, chat_id: ChatId, attachment_id: AttachmentId) -> Attachment:
    """One attachment of the caller's chat.

    Raises ChatNotFound, AttachmentNotFound.
    """
    chats.get(call, chat_id)
    return _present(call, chat_id, attachment_id)


async def settled(call: Call, attachment: Attachment, seconds: float) -> Attachment:
    """The attachment once it is ready or failed, or as it is after so many seconds.

    Reads that the store does not answer are skipped. Raises AttachmentNotFound when it is deleted meanwhile, and
    ChatNotFound when its chat is.
    """
    ends_at, pauses = time.monotonic() + seconds, growing(FIRST_LOOK_SECONDS, LONGEST_PAUSE_SECONDS, factor=1.5)
    while attachment.is_open and (left := ends_at - time.monotonic()) > 0:
        await asyncio.sleep(min(next(pauses), left))
        with suppress(ServiceUnavailable):
            attachment = await greenlets.run(_as_it_stands, call, attachment)
    return attachment


def _as_it_stands(call: Call, attachment: Attachment) -> Attachment:
    """The attachment as it is now; only a ready or failed one can have a thumbnail to read."""
    chat, found = attachments.with_chat(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)
    visible(chat, call.caller)
    if found is None or found.deleted_at is not None:
        raise AttachmentNotFound
    return found if found.is_open else attachments.pictured([found])[0]


def _present(call: Call, chat_id: ChatId, attachment_id: AttachmentId) -> Attachment:
    found = attachments.shown(call.caller.tenant_id, chat_id, [attachment_id])
    if not found or found[0].deleted_at is not None:
        raise AttachmentNotFound
    return found[0]


def delete(call: Call, chat_id: ChatId, attachment_id: AttachmentId) -> None:
    """Deletes an attachment that no visible message was sent with; repeating it changes nothing.

    Raises ChatNotFound, AttachmentNotFound, Forbidden (another's), AttachmentLocked, ServiceUnavailable.
    """
    chats.get(call, chat_id)
    for _ in range(DELETE_ATTEMPTS):
        attachment = attachments.read(call.caller.tenant_id, chat_id, attachment_id)
        if attachment is None:
            raise AttachmentNotFound
        if attachment.uploaded_by != call.caller.user_id:
            raise Forbidden
        if attachment.deleted_at is not None:
            return
        if attachment.references:
            raise AttachmentLocked
        events = (attachment_deleted(call, attachment), to_be_cleaned(attachment, call.now))
        if attachment_steps.delete(call, attachment, [outbox.item(call, chat_id, event) for event in events]):
            return
    raise ServiceUnavailable


def limits_of(chat: Chat, rules: Rules) -> FileLimits:
    """What the deployment and the chat's model allow.

    Raises ServiceUnavailable when the chat's model is no longer in the catalog.
    """
    settings = rules.settings.attachments
    return FileLimits(
        document_bytes=settings.document_max_kb * 1024,
        image_bytes=settings.image_max_kb * 1024,
        documents_per_chat=settings.max_documents_per_chat,
        bytes_per_chat=settings.max_total_mb_per_chat * 1024 * 1024,
        per_day=rules.per_day,
        retention_days=rules.settings.quota.retention_days,
        rates=rules.rates,
    ).with_model(_model(chat, rules).general_config.max_file_size_mb)


def _accepted(file: NewFile, chat: Chat, rules: Rules) -> FileType:
    provider = rules.settings.providers.get(_model(chat, rules).provider_id)
    if provider is None or not provider.keeps_files:
        detail = "The provider of this chat's model takes no files."
        raise InvalidRequest(FieldError("file", detail, "files_unavailable"))
    name = clean_name(file.filename)
    file_type = type_of(file.content_type, name, allow_csv=rules.settings.attachments.allow_csv)
    check_size(file_type, file.size_bytes, limits_of(chat, rules))
    if file_type.purposes == ("code_interpreter",):
        can_run = _model(chat, rules).general_config.tool_support.code_interpreter
        if not can_run or rules.policy.kill_switches.disable_code_interpreter:
            detail = "Files of this type need the code interpreter, which is not available in this chat."
            raise InvalidRequest(FieldError("file", detail, "code_interpreter_unavailable"))
    return file_type


def _model(chat: Chat, rules: Rules) -> Model:
    # A disabled one too: its provider is where the chat's other files are.
    found = next((model for model in rules.policy.model_catalog if model.id == chat.model), None)
    if found is None:
        raise ServiceUnavailable
    return found


def _made(call: Call, chat: Chat, file: NewFile, file_type: FileType, rules: Rules) -> Attachment:
    return Attachment(
        tenant_id=chat.tenant_id,
        chat_id=chat.chat_id,
        attachment_id=AttachmentId(call.new_id(call.now)),
        kind=file_type.kind,
        storage_backend=_model(chat, rules).provider_id,
        uploaded_by=call.caller.user_id,
        filename=clean_name(file.filename),
        content_type=file_type.content_type,
        size_bytes=file.size_bytes,
    )


def _stored(call: Call, made: Attachment, limits: FileLimits, rules: Rules, once: Once | None) -> Attachment:
    """The stored attachment; or the one that the key made before, as it is now. A deleted one is not made again."""
    event = AttachmentExpected(tenant_id=made.tenant_id, chat_id=made.chat_id, attachment_id=made.attachment_id)
    delay = rules.settings.attachments.abandoned_after_seconds
    expected = outbox.item(call, made.chat_id, event, delay_seconds=delay)
    attachment_id = attachment_steps.create(call, made, limits, expected, once)
    return made if attachment_id == made.attachment_id else _present(call, made.chat_id, attachment_id)


def _key(attachment: Attachment) -> str:
    return keys.upload(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)


def to_be_cleaned(attachment: Attachment, deleted_at: datetime) -> AttachmentCleanup:
    """The event that has an attachment deleted at its provider."""
    return AttachmentCleanup(
        tenant_id=attachment.tenant_id,
        chat_id=attachment.chat_id,
        attachment_id=attachment.attachment_id,
        provider_file_id=attachment.provider_file_id,
        vector_store_id=attachment.vector_store_id,
        storage_backend=attachment.storage_backend,
        attachment_kind=attachment.kind,
        deleted_at=deleted_at,
    )
