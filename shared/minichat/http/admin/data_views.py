"""What the operator's API answers with about people's rights: erasures."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class NewErasureBody(BaseModel):
    """Who is to be erased: one user, or the tenant."""

    user_id: str | None = None
    whole_tenant: str | None = Field(None, description="The tenant's own name again: everything of all its users goes.")


class ErasureView(BaseModel):
    """An erasure, and how far it is."""

    id: str
    scope: Literal["user", "tenant"]
    user_id: str | None = Field(description="Until it is complete; then nobody knows any more.")
    requested_at: datetime
    completed_at: datetime | None
    passes: int = Field(description="How often it has gone through the table.")
    waits_for: str | None = Field(description="What has to happen first; it does by itself, unless it says otherwise.")
    counts: dict[str, int] = Field(description="What is gone so far, by kind, and what was kept without a name.")
    manifest: str | None = Field(description="A JSON Web Signature over the counts, once it is complete.")


class ErasureList(BaseModel):
    """Erasures, the oldest first."""

    items: list[ErasureView]
