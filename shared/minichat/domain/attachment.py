"""What a chat has at providers: the files that its user gave to it, and the vector stores that they are searched in.

pending ──> uploaded ──> ready      nothing has the file yet; its provider has it; it can be used
   │            │
   └────────────┴──> failed         `error_code` says why; it no longer counts against the chat's limits
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from minichat.domain.cleanup import Cleanup
from minichat.domain.day_counts import DayCounts
from minichat.domain.identity import AttachmentId, ChatId, TenantId, UserId, instant_of

AttachmentKind = Literal["document", "image"]
ErrorCode = Literal[
    "file_too_large",
    "unsupported_file_type",
    "invalid_image",
    "upload_abandoned",
    "upload_failed",
    "vector_store_failed",
    "indexing_failed",
]
"""Why an attachment failed: stable words for clients."""
NOT_THE_FILES_FAULT = frozenset[ErrorCode]({"upload_abandoned", "upload_failed", "vector_store_failed"})
"""Failures that do not count against the day's uploads: the file never came, or its provider did not take it."""


class AttachmentStatus(StrEnum):
    """Where an attachment stands."""

    PENDING = "pending"
    UPLOADED = "uploaded"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small WebP picture of an image, and its size in pixels."""

    width: int
    height: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ingest:
    """How far the work on an attachment has come: how often it was begun, who holds it now, and until when.

    `upload_began_at` is when its provider was first sent the file: from then on the provider may have it, whatever we
    know.
    """

    attempts: int = 0
    worker: str | None = None
    until: datetime | None = None
    upload_began_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a chat. `storage_backend` is the provider that has it, by its name in the settings.

    Without a `provider_file_id` no provider has it; `vector_store_id` is the store that it was put into.
    `references` counts the visible messages that it was sent with. Its thumbnail is read only to be shown.
    """

    tenant_id: TenantId
    chat_id: ChatId
    attachment_id: AttachmentId
    kind: AttachmentKind
    storage_backend: str
    provider_file_id: str | None = None
    vector_store_id: str | None = None
    deleted_at: datetime | None = None
    cleanup: Cleanup = field(default_factory=Cleanup)
    uploaded_by: UserId | None = None
    filename: str = ""
    content_type: str = ""
    size_bytes: int = 0
    status: AttachmentStatus = AttachmentStatus.PENDING
    error_code: str | None = None
    thumbnail: Thumbnail | None = None
    references: int = 0
    ingest: Ingest = field(default_factory=Ingest)
    summary: str | None = None
    summarized_at: datetime | None = None

    @property
    def created_at(self) -> datetime:
        """When it was made, from its id."""
        return instant_of(UUID(self.attachment_id))

    @property
    def day_counts(self) -> DayCounts:
        """What it adds to the numbers of the day that it was made."""
        return DayCounts(uploads=1, upload_bytes=self.size_bytes)

    @property
    def is_open(self) -> bool:
        """Whether work on it may go on: it is on its way, and nobody deleted it or began to clean it up."""
        on_its_way = self.status in (AttachmentStatus.PENDING, AttachmentStatus.UPLOADED)
        return on_its_way and self.deleted_at is None and self.cleanup.status is None

    @property
    def unnoted_since(self) -> datetime | None:
        """Since when its provider may have a file that nobody has noted: whoever was sending it may be dead."""
        return self.ingest.upload_began_at if self.provider_file_id is None else None

    def is_held(self, now: datetime) -> bool:
        """Whether somebody may be working on it right now."""
        return self.ingest.until is not None and self.ingest.until > now


@dataclass(frozen=True, slots=True)
class VectorStore:
    """A chat's vector store at a provider. Without an id it is only claimed, and not made yet.

    `claimed_by` holds the claim until `claimed_until`; then another may take it over. From the first claim
    (`claimed_at`) on, the provider may have the store, whatever we know.
    """

    tenant_id: TenantId
    chat_id: ChatId
    provider: str
    vector_store_id: str | None = None
    gone_at: datetime | None = None
    claimed_by: str | None = None
    claimed_at: datetime | None = None
    claimed_until: datetime | None = None
