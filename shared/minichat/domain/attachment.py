"""What a chat has at providers: the files that its user gave to it, and the vector stores that they are searched in."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from minichat.domain.cleanup import Cleanup
from minichat.domain.identity import AttachmentId, ChatId, TenantId

AttachmentKind = Literal["document", "image"]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a chat. `storage_backend` is the provider that has it, by its name in the settings.

    Without a `provider_file_id` no provider has it; `vector_store_id` is the store that it was put into.
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


@dataclass(frozen=True, slots=True)
class VectorStore:
    """A chat's vector store at a provider. Without an id it is only claimed: whoever did so has not made it yet."""

    tenant_id: TenantId
    chat_id: ChatId
    provider: str
    vector_store_id: str | None = None
    gone_at: datetime | None = None
