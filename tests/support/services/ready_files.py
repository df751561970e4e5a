"""Attachments as the ingest function leaves them, without a file or a provider."""

from dataclasses import replace

from minichat.domain.attachment import Attachment, Thumbnail
from minichat.domain.chat import Chat
from minichat.domain.identity import Call
from minichat.services import attachments as service
from minichat.services.policy_in_force import Rules
from minichat.storage import attachment_steps, attachments
from tests.support.domain.builders import new_id


def announced(
    call: Call, chat: Chat, rules: Rules, content_type: str, name: str, size: int = 9, *, key: str | None = None
) -> Attachment:
    """A new attachment, pending. Nobody posts its form."""
    return service.announce(call, chat, service.NewFile(name, content_type, size, key), rules)[0]


def ready(call: Call, attachment: Attachment, picture: bytes | None = None) -> Attachment:
    """The attachment, taken in: a document that can be searched is in the chat's store."""
    assert attachment_steps.take(attachment, "w", now=call.now, until=call.now)
    file_id = f"file-{attachment.attachment_id}"
    assert attachment_steps.uploaded(attachment, "w", file_id)
    taken = replace(attachment, provider_file_id=file_id)
    if attachment.content_type == "application/pdf":
        assert attachment_steps.enters_store(attachment, "w", f"vs-{attachment.chat_id}", token=new_id(call.now))
        taken = replace(taken, vector_store_id=f"vs-{attachment.chat_id}")
    thumbnail = Thumbnail(1, 1, picture) if picture is not None else None
    assert attachment_steps.ready(taken, "w", thumbnail, token=new_id(call.now))
    return stored(attachment)


def stored(attachment: Attachment) -> Attachment:
    """The attachment as it is now."""
    found = attachments.read(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)
    assert found is not None
    return found
