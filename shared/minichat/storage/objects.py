"""The bucket in which files wait for ingestion; clients upload large ones there with a form that we sign.

boto3 makes the calls, and blocks: on an event loop they run in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from minichat import greenlets
from minichat.domain.errors import ServiceUnavailable
from minichat.observability import logger
from minichat.settings import current

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


@dataclass(frozen=True, slots=True)
class Form:
    """A form to be posted as multipart/form-data: these fields first, then the file in a field `file`."""

    url: str
    fields: Mapping[str, str]


@greenlets.blocks
def form(key: str, content_type: str, size: int, *, seconds: int) -> Form:
    """A form with which anybody can upload exactly one object: that key, type and size in bytes, for so many seconds.

    Raises ServiceUnavailable without credentials or a bucket.
    """
    try:
        made = _s3().generate_presigned_post(
            _bucket(),
            key,
            Fields={"Content-Type": content_type},
            Conditions=[{"Content-Type": content_type}, ["content-length-range", size, size]],
            ExpiresIn=seconds,
        )
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable from error
    return Form(made["url"], made["fields"])


@greenlets.blocks
def put(key: str, content: bytes, content_type: str) -> None:
    """Stores a file.

    Raises ServiceUnavailable, as everything below does.
    """
    try:
        _s3().put_object(Bucket=_bucket(), Key=key, Body=content, ContentType=content_type)
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable from error


@greenlets.blocks
def read(key: str, *, at_most: int) -> bytes | None:
    """The first bytes of a file, up to one more than `at_most`; None when there is no such file."""
    try:
        answer = _s3().get_object(Bucket=_bucket(), Key=key)
        with answer["Body"] as body:
            content: bytes = body.read(at_most + 1)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
            return None
        raise ServiceUnavailable from error
    except BotoCoreError as error:
        raise ServiceUnavailable from error
    return content


@greenlets.blocks
def delete(key: str) -> None:
    """Deletes a file, whether it exists or not."""
    try:
        _s3().delete_object(Bucket=_bucket(), Key=key)
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable from error


@greenlets.blocks
def link(key: str, filename: str, *, seconds: int) -> str:
    """A link with which anybody can fetch a file, under that name, for so many seconds at most."""
    shown = {"Bucket": _bucket(), "Key": key, "ResponseContentDisposition": f'attachment; filename="{filename}"'}
    try:
        made: str = _s3().generate_presigned_url("get_object", Params=shown, ExpiresIn=seconds)
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable from error
    return made


@greenlets.blocks
def listed(prefix: str) -> list[str]:
    """The names of all files that begin so."""
    try:
        pages = _s3().get_paginator("list_objects_v2").paginate(Bucket=_bucket(), Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]
    except (BotoCoreError, ClientError) as error:
        raise ServiceUnavailable from error


def _bucket() -> str:
    bucket = current().attachments.bucket
    if not bucket:
        logger.error("attachments.bucket is not set: no file can be taken")
        raise ServiceUnavailable
    return bucket


@cache
def _s3() -> "S3Client":
    # Most requests have no file, and should not pay for the import.
    import boto3  # noqa: PLC0415

    settings = current()
    endpoint = settings.attachments.endpoint
    return boto3.client(
        "s3",
        region_name=settings.store.region,
        endpoint_url=endpoint,
        config=Config(
            signature_version="s3v4",
            # The global endpoint redirects requests for other regions, and a redirect loses a form.
            s3={"addressing_style": "path" if endpoint else "virtual", "us_east_1_regional_endpoint": "regional"},
            connect_timeout=settings.store.connect_timeout_seconds,
            read_timeout=settings.store.read_timeout_seconds,
            # Even if both attempts hang, the API's function has time left to say so.
            retries={"mode": "standard", "total_max_attempts": 2},
        ),
    )
