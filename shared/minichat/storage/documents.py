"""The ready documents of a chat in one item, which a turn gets with the reads that it makes anyway.

    <attachment_id>    [provider, provider's id of the file, vector store, content type, file name, summary], as JSON

The transaction that makes an attachment ready adds its attribute, and the one that deletes it removes the attribute.
Without a summary the sixth element is missing.
"""

import json
from typing import Final

from pynamodb.expressions.operand import Path

from minichat.domain import doc_summary
from minichat.domain.attachment import Attachment
from minichat.domain.identity import AttachmentId
from minichat.domain.tools import Document
from minichat.storage import keys
from minichat.storage.items import ConversationItem
from minichat.storage.keys import Raw
from minichat.storage.transact import Update

_ID_LENGTH: Final = 36


def add(attachment: Attachment) -> Update:
    """The write that makes a document known to turns."""
    told = [
        attachment.storage_backend,
        attachment.provider_file_id,
        attachment.vector_store_id,
        attachment.content_type,
        attachment.filename,
        *([doc_summary.told(attachment.summary)] if attachment.summary else []),
    ]
    packed = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return Update("documents", _item(attachment), [_of(attachment).set(packed)])


def remove(attachment: Attachment) -> Update:
    """The write that hides a document from turns, whether they knew of it or not."""
    return Update("documents", _item(attachment), [_of(attachment).remove()])


def from_raw(raw: Raw | None) -> tuple[Document, ...]:
    """The documents of a stored item, the oldest first."""
    told = {name: value["S"] for name, value in (raw or {}).items() if len(name) == _ID_LENGTH}
    return tuple(_document(AttachmentId(name), packed) for name, packed in sorted(told.items()))


def _document(attachment_id: AttachmentId, packed: str) -> Document:
    provider, file_id, vector_store_id, content_type, filename, *summary = json.loads(packed)
    return Document(attachment_id, filename, content_type, provider, file_id, vector_store_id, "".join(summary))


def _of(attachment: Attachment) -> Path:
    # In a list: pynamodb splits a plain string at its dots.
    return Path([attachment.attachment_id])


def _item(attachment: Attachment) -> ConversationItem:
    return ConversationItem(*keys.documents(attachment.tenant_id, attachment.chat_id))
