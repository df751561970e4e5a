"""The audit trail: one record per event, redacted, written once (events-and-workers 2).

Each record is an object (or file) of its own, named after its event: a redelivery finds it and changes nothing, and no
two writers share one. Each holds one line of JSON, so a folder of them is JSON Lines.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import boto3
from botocore.exceptions import ClientError

from minichat.domain.names import in_key
from minichat.domain.redaction import KINDS, Json, redact
from minichat.observability import count, logger
from minichat.settings import current

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_MARK = re.compile(r"\[redacted:([a-z0-9-]{1,40})\]")
_IDENTITIES = ("tenant_id", "user_id", "actor_user_id")
LONGEST_IN_FOLDER = 240
"""Characters of a tenant in the name of a folder."""


def write(body: str, event_id: str, happened_at: datetime) -> bool:
    """Writes the record of an event, given as its JSON; False when it already exists.

    `event_id` is a UUID. Members that this version does not know are kept.
    Raises OSError, BotoCoreError or ClientError.
    """
    event: dict[str, Json] = json.loads(body)
    record = {"event_id": event_id, **_redacted(event)}
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
    tenant = in_key(str(event["tenant_id"]))
    name = f"day={happened_at.date().isoformat()}/{UUID(event_id)}.jsonl"
    sink = current().audit.sink
    bucket = sink.removeprefix("s3://")
    if bucket != sink:
        bucket, _, prefix = bucket.partition("/")
        return _put(bucket, f"{prefix}/tenant={tenant}/{name}".lstrip("/"), line.encode())
    return _append(Path(sink) / f"tenant={_short(tenant)}" / name, line.encode())


def records(sink: Path) -> Iterator[dict[str, Any]]:
    """Every record in a sink that is a folder; files that are no records are logged and skipped."""
    for file in sorted(sink.glob("tenant=*/day=*/*.jsonl")):
        try:
            found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        except (ValueError, RecursionError):
            logger.exception("an audit record cannot be read", extra={"file": str(file)})
            continue
        yield from (one for one in found if isinstance(one, dict))


def _redacted(event: dict[str, Json]) -> dict[str, Json]:
    redacted = redact(event)
    assert isinstance(redacted, dict)
    for kind in _MARK.findall(json.dumps(redacted, ensure_ascii=False)):
        if kind in KINDS:  # a text may hold any word in the form of a mark
            count("redactions_total", kind=kind)
    # Names that an issuer gave may look like keys; without them a record is nobody's.
    return redacted | {name: event[name] for name in _IDENTITIES if name in event}


def _put(bucket: str, key: str, line: bytes) -> bool:
    try:
        _s3().put_object(Bucket=bucket, Key=key, Body=line, ContentType="application/x-ndjson", IfNoneMatch="*")
    except ClientError as error:
        # 412: it exists. 409: somebody is writing it right now; the event is redelivered and finds it.
        if error.response["Error"]["Code"] == "PreconditionFailed":
            return False
        raise
    return True


@cache
def _s3() -> "S3Client":
    settings = current()
    return boto3.client("s3", region_name=settings.store.region, endpoint_url=settings.queues.endpoint)


def _short(tenant: str) -> str:
    """The tenant in the name of a folder, which has no room for more than 255 bytes."""
    digest = hashlib.sha256(tenant.encode()).hexdigest()
    return tenant if len(tenant) <= LONGEST_IN_FOLDER else f"{tenant[: LONGEST_IN_FOLDER - 65]}~{digest}"


def _append(file: Path, line: bytes) -> bool:
    """Writes the file whole or not at all: a killed writer leaves no half record."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}-{id(line)}")
    draft.write_bytes(line)
    try:
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True
