"""Notifications from S3 about the bucket of uploads, reduced to the members in use."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Literal
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field

from minichat.domain.identity import AttachmentId, ChatId, TenantId
from minichat.domain.names import from_key


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True)


class _Object(_Said):
    key: str


class _Bucket(_Said):
    object: _Object


class _Record(_Said):
    s3: _Bucket


class Arrived(_Said):
    """Objects that were put into the bucket."""

    records: list[_Record] = Field(alias="Records", min_length=1)

    def attachments(self) -> Iterator[tuple[TenantId, ChatId, AttachmentId]]:
        """The attachments that the keys name (`storage.keys.upload`); other keys are skipped."""
        for record in self.records:
            parts = unquote_plus(record.s3.object.key).split("/")
            if len(parts) == 3 and all(parts):
                with suppress(ValueError):  # it begins with no tenant
                    yield TenantId(from_key(parts[0])), ChatId(parts[1]), AttachmentId(parts[2])


class Tested(_Said):
    """The test event that S3 sends once, when notifications are configured."""

    event: Literal["s3:TestEvent"] = Field(alias="Event")  # allowed: S3 says it
