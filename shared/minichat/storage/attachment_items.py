"""The shapes of the items of attachments and their pictures: short names, as in storage.items."""

from minichat.storage.attributes import BinaryAttribute, InstantAttribute, NumberAttribute, UnicodeAttribute
from minichat.storage.idempotency_keys import OnceItem
from minichat.storage.items import ConversationItem


class AttachmentItem(ConversationItem):
    """A file that a user gave to a chat: the progress of its ingestion, and of its cleanup at the provider."""

    kind = UnicodeAttribute()
    storage_backend = UnicodeAttribute(attr_name="backend")
    provider_file_id = UnicodeAttribute(attr_name="file", null=True)
    vector_store_id = UnicodeAttribute(attr_name="vs", null=True)
    deleted_at = InstantAttribute(null=True)
    cleanup_status = UnicodeAttribute(attr_name="cleanup", null=True)
    cleanup_attempts = NumberAttribute(attr_name="attempts", null=True)
    last_cleanup_error = UnicodeAttribute(attr_name="cleanup_error", null=True)
    cleanup_updated_at = InstantAttribute(attr_name="cleanup_at", null=True)
    uploaded_by = UnicodeAttribute(attr_name="user", null=True)
    filename = UnicodeAttribute(attr_name="name", null=True)
    content_type = UnicodeAttribute(attr_name="type", null=True)
    size_bytes = NumberAttribute(attr_name="size", null=True)
    status = UnicodeAttribute(null=True)
    error_code = UnicodeAttribute(attr_name="error", null=True)
    references = NumberAttribute(attr_name="refs", null=True)
    ingest_attempts = NumberAttribute(attr_name="tries", null=True)
    ingest_worker = UnicodeAttribute(attr_name="worker", null=True)
    ingest_until = InstantAttribute(attr_name="until", null=True)
    upload_began_at = InstantAttribute(attr_name="began_at", null=True)
    summary = UnicodeAttribute(attr_name="sum", null=True)
    summarized_at = InstantAttribute(attr_name="sum_at", null=True)


class ThumbnailItem(ConversationItem):
    """The thumbnail of an attachment, until the attachment is deleted.

    Not a part of the attachment's item, which every message that refers to it writes.
    """

    data = BinaryAttribute(null=True, legacy_encoding=False)
    width = NumberAttribute()
    height = NumberAttribute()


class CreatedAttachmentItem(OnceItem):
    """The attachment that an idempotency key made."""

    attachment_id = UnicodeAttribute(attr_name="att")
