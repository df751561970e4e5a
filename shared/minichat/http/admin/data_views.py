"""What the operator's API takes and answers with about people's rights: erasures, and whom an export is of."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from minichat.domain.errors import FieldError as Wrong
from minichat.domain.errors import InvalidRequest
from minichat.domain.identity import TenantId, UserId
from minichat.domain.names import said


class NewErasureBody(BaseModel):
    """Who is to be erased: one user, or the tenant."""

    user_id: str | None = None
    whole_tenant: str | None = Field(None, description="The tenant's own name again: everything of all its users goes.")


class NewExportBody(BaseModel):
    """Who is to be exported: one user, or the tenant."""

    user_id: str | None = None
    whole_tenant: str | None = Field(None, description="The tenant's own name again: everything of all its users.")


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


def whom(tenant_id: TenantId, body: NewErasureBody | NewExportBody) -> UserId | None:
    """The user that a body names; None for the whole tenant, which has to be named once more.

    Raises InvalidRequest.
    """
    try:
        user_id = None if body.user_id is None else UserId(said(body.user_id))
        whole = None if body.whole_tenant is None else said(body.whole_tenant)
    except ValueError as problem:
        raise InvalidRequest(Wrong("body", str(problem))) from None
    if (user_id is None) == (whole is None):
        raise InvalidRequest(Wrong("user_id", "Name either a user, or the whole tenant.", "one_of"))
    if whole not in (None, tenant_id):
        raise InvalidRequest(Wrong("whole_tenant", "This is not the tenant of the path.", "mismatch"))
    return user_id
