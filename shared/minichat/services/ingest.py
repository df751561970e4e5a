"""From a file in the bucket to an attachment that can be used (context-attachments-providers 3).

validate ── thumbnail ── the provider's file ── its place in the chat's vector store ── indexed ── ready

May be killed between any two calls, and run by any number at once. The item says what the provider will be asked to
make before it is asked; what was made and not noted is found again by its name. The write that notes it requires that
no cleanup has begun; otherwise the worker takes back what it made. After its attempts an attachment ends `failed`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from minichat.domain import office
from minichat.domain.attachment import Attachment, AttachmentStatus, ErrorCode, Thumbnail
from minichat.domain.cleanup import Failure
from minichat.domain.files import TYPES, FileType, is_office, is_what_it_says, name_at_provider
from minichat.domain.identity import AttachmentId, Call, Caller, ChatId, Clock, NewId, TenantId
from minichat.events.payloads import DocSummaryTask
from minichat.observability import count, logger
from minichat.pauses import growing
from minichat.providers.files import Account, Files
from minichat.services import thumbnail, vector_stores
from minichat.services.provider_cleanup import take_away
from minichat.settings import Attachments
from minichat.storage import attachment_steps, attachments, keys, objects, outbox
from minichat.storage.items import OutboxItem

T = TypeVar("T")

GRACE = timedelta(seconds=50)
"""How much longer than its time a worker keeps others away: more than the longest call that may still be under way."""
MORE_ATTEMPTS = 3
"""More attempts to find out what a provider has of a failed attachment."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0


class Ingested(StrEnum):
    """What became of an attempt. AGAIN wants another one; WAITING has no file yet."""

    READY = "ready"
    FAILED = "failed"
    NOTHING = "nothing"
    WAITING = "waiting"
    AGAIN = "again"


@dataclass(frozen=True, slots=True)
class IngestDeps:
    """What ingesting files needs; `sleep` waits for so many seconds. Documents get a summary if it `summarizes`."""

    files: Files
    settings: Attachments
    clock: Clock
    new_id: NewId
    sleep: Callable[[float], object]
    summarizes: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt on an attachment: who makes it, with what, and until when."""

    attachment: Attachment
    worker: str
    means: IngestDeps
    ends_at: datetime

    @property
    def account(self) -> Account:
        """Where the attachment's file goes."""
        return Account(self.means.files, self.attachment.tenant_id, self.attachment.storage_backend)

    @property
    def key(self) -> str:
        """Where its file waits."""
        return keys.upload(self.attachment.tenant_id, self.attachment.chat_id, self.attachment.attachment_id)

    @property
    def file_type(self) -> FileType:
        """The file's type."""
        return TYPES[self.attachment.content_type]

    @property
    def name(self) -> str:
        """The file's name at the provider."""
        return name_at_provider(self.attachment)

    @property
    def token(self) -> str:
        """A name for one more transaction of this attempt."""
        return self.means.new_id(self.means.clock())


class _Wrong(Exception):
    """The attachment will never be ready."""

    def __init__(self, code: ErrorCode) -> None:
        self.code = code
        super().__init__(code)


class _Passing(Exception):
    """It may work later; `code` is the attachment's error if it never does."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


class _Overtaken(Exception):
    """The attachment or its chat was deleted, or another worker has it."""


def ingest(
    tenant_id: TenantId, chat_id: ChatId, attachment_id: AttachmentId, means: IngestDeps, *, ends_at: datetime
) -> Ingested:
    """One attempt to ingest a file; it begins before `ends_at` and is over soon after it.

    Raises ServiceUnavailable.
    """
    chat, attachment = attachments.with_chat(tenant_id, chat_id, attachment_id)
    if attachment is None:
        objects.delete(keys.upload(tenant_id, chat_id, attachment_id))
        return Ingested.NOTHING
    worker = means.new_id(means.clock())
    job = Job(attachment, worker, means, ends_at)
    if chat is None or chat.deleted_at is not None or not attachment.is_open:
        return _tidy(job)
    content = objects.read(job.key, at_most=attachment.size_bytes)
    never_sent = attachment.status is AttachmentStatus.PENDING and attachment.ingest.upload_began_at is None
    if content is None and never_sent and not _is_late(job):
        return Ingested.WAITING
    if not attachment_steps.take(attachment, worker, now=means.clock(), until=ends_at + GRACE):
        return Ingested.AGAIN
    taken = attachments.read(tenant_id, chat_id, attachment_id)
    assert taken is not None
    return _attempt(replace(job, attachment=taken), content)


def _is_late(job: Job) -> bool:
    patience = timedelta(seconds=job.means.settings.abandoned_after_seconds)
    return job.means.clock() >= job.attachment.created_at + patience


def _attempt(job: Job, content: bytes | None) -> Ingested:
    attempts, most = job.attachment.ingest.attempts, job.means.settings.max_attempts
    if attempts > most:
        # Earlier attempts died before they could say why.
        return _fail(job, "indexing_failed" if job.attachment.status is AttachmentStatus.UPLOADED else "upload_failed")
    try:
        _take_in(job, content)
    except _Wrong as wrong:
        return _fail(job, wrong.code)
    except _Passing as passing:
        logger.warning("a file is not taken in yet", extra={"reason": passing.reason, "attempt": attempts})
        if attempts >= most:
            return _fail(job, passing.code)
        attachment_steps.release(job.attachment, job.worker)
        return Ingested.AGAIN
    except _Overtaken:
        attachment_steps.release(job.attachment, job.worker)
        return Ingested.AGAIN
    objects.delete(job.key)
    count("attachment_upload_total", kind=job.attachment.kind, result="ok")
    return Ingested.READY


def _take_in(job: Job, content: bytes | None) -> None:
    picture = None
    if content is not None:
        picture = _validated(job, content)
    attachment = job.attachment
    if attachment.provider_file_id is None:
        attachment = replace(attachment, provider_file_id=_uploaded(job, content))
    if "file_search" in job.file_type.purposes:
        store_id = _indexed(replace(job, attachment=attachment))
        attachment = replace(attachment, vector_store_id=store_id)
    if not attachment_steps.ready(
        attachment, job.worker, picture, token=job.token, event=_summary_task(job, attachment)
    ):
        raise _Overtaken


def _summary_task(job: Job, attachment: Attachment) -> OutboxItem | None:
    """The event that has a document summarized; None if no model can search it or summaries are off."""
    owner = attachment.uploaded_by
    if not job.means.summarizes or attachment.vector_store_id is None or owner is None:
        return None
    call = Call(Caller(attachment.tenant_id, owner, "system"), job.means.clock(), job.means.new_id)
    task = DocSummaryTask(
        tenant_id=attachment.tenant_id,
        chat_id=attachment.chat_id,
        user_id=owner,
        system_request_id=job.token,
        system_task_type="doc_summary",
        attachment_id=attachment.attachment_id,
    )
    return outbox.item(call, attachment.chat_id, task)


def _validated(job: Job, content: bytes) -> Thumbnail | None:
    """The thumbnail of an image; a file that is not of its declared type never reaches a provider."""
    if len(content) != job.attachment.size_bytes:
        raise _Wrong("file_too_large" if len(content) > job.attachment.size_bytes else "upload_failed")
    if not is_what_it_says(job.file_type, content):
        raise _Wrong("unsupported_file_type")
    if is_office(job.file_type):
        try:
            office.check(content)
        except office.NotOffice:
            raise _Wrong("unsupported_file_type") from None
        except office.ExpandsTooFar:
            raise _Wrong("file_too_large") from None
    if job.attachment.kind != "image":
        return None
    try:
        return thumbnail.of_image(content, job.attachment.content_type, job.means.settings.thumbnails)
    except thumbnail.InvalidImage:
        raise _Wrong("invalid_image") from None


def _uploaded(job: Job, content: bytes | None) -> str:
    """The provider's id of the file, noted."""
    began_at, found = job.attachment.ingest.upload_began_at, []
    if began_at is not None:
        found = _good(job.account.find_files(job.name, began_at), "upload_failed")
        for another in found[1:]:
            job.account.delete_file(another)
    if found:
        file_id = found[0]
    elif content is None:
        raise _Wrong("upload_abandoned" if began_at is None else "upload_failed")
    else:
        # Since the first attempt: a file that it made may still turn up.
        since = began_at or job.means.clock()
        _must(attachment_steps.upload_begins(job.attachment, job.worker, since, token=job.token))
        sent = job.account.upload(job.name, content, job.attachment.content_type)
        file_id = _good(sent, "upload_failed")
    if not attachment_steps.uploaded(job.attachment, job.worker, file_id):
        _take_back(job, file_id)
        raise _Overtaken
    return file_id


def _take_back(job: Job, file_id: str) -> None:
    """Deletes a file that could not be noted, unless another worker noted it; if this fails, `_tidy` finds it."""
    where = job.attachment.tenant_id, job.attachment.chat_id, job.attachment.attachment_id
    now = attachments.read(*where)
    if now is None or now.provider_file_id != file_id:
        job.account.delete_file(file_id)


def _indexed(job: Job) -> str:
    """Puts the file into the chat's vector store, and waits until it is searchable there; the store's id."""
    attachment, file_id = job.attachment, job.attachment.provider_file_id
    assert file_id is not None
    store_id = attachment.vector_store_id
    if store_id is None:
        pause = vector_stores.Pause(job.means.clock, job.means.sleep, job.ends_at, lambda: _look(job))
        store = vector_stores.of_chat(attachment, job.worker, job.account, pause, job.means.new_id)
        store_id = _good(store, "vector_store_failed")
        _must(attachment_steps.enters_store(attachment, job.worker, store_id, token=job.token))
    pauses = growing(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    put_in = False
    while True:
        match _good(job.account.indexing(store_id, file_id), "indexing_failed"):
            case "completed":
                return store_id
            case "failed":
                raise _Wrong("indexing_failed")
            case "absent" if not put_in:
                attributes = {"attachment_id": attachment.attachment_id}
                failure = job.account.put_in(store_id, file_id, attributes)
                if failure is not None:
                    raise _as_exception(failure, "indexing_failed")
                put_in = True
        if job.means.clock() >= job.ends_at:
            raise _Passing("indexing_failed", "not indexed yet")
        job.means.sleep(next(pauses))
        _look(job)


def _look(job: Job) -> None:
    """Raises _Overtaken once this worker's attempt is no longer wanted; checked while waiting, to let go at once."""
    attachment = job.attachment
    chat, now = attachments.with_chat(attachment.tenant_id, attachment.chat_id, attachment.attachment_id)
    is_mine = now is not None and now.is_open and now.ingest.worker == job.worker
    if chat is None or chat.deleted_at is not None or not is_mine:
        raise _Overtaken


def _fail(job: Job, code: ErrorCode) -> Ingested:
    """Ends an attachment as failed, once its provider has nothing of it; after some more attempts, in any case."""
    last = job.attachment.ingest.attempts >= job.means.settings.max_attempts + MORE_ATTEMPTS
    nothing_left = _taken_away(job)
    if not nothing_left and not last:
        attachment_steps.release(job.attachment, job.worker)
        return Ingested.AGAIN
    if not attachment_steps.failed(job.attachment, job.worker, code, nothing_left=nothing_left, token=job.token):
        return Ingested.AGAIN
    if not nothing_left:
        logger.error("a provider may keep the file of a failed attachment", extra={"error_code": code})
    objects.delete(job.key)
    count("attachment_upload_total", kind=job.attachment.kind, result=code)
    return Ingested.FAILED


def _tidy(job: Job) -> Ingested:
    """Deletes the leftovers of an unwanted attachment: the file in the bucket, and what a dead worker did not note."""
    attachment = job.attachment
    if attachment.unnoted_since is not None and attachment.status is AttachmentStatus.PENDING:
        if attachment.is_held(job.means.clock()):
            # Somebody may be uploading it right now, and will take it back.
            return Ingested.AGAIN
        if not _taken_away(job):
            return Ingested.AGAIN
    objects.delete(job.key)
    return Ingested.NOTHING


def _taken_away(job: Job) -> bool:
    """Whether the provider has nothing of the attachment any more."""
    where = attachments.read(job.attachment.tenant_id, job.attachment.chat_id, job.attachment.attachment_id)
    now = where or job.attachment
    return take_away(now, job.means.files) is None


def _must(noted: bool) -> None:
    if not noted:
        raise _Overtaken


def _good(answer: T | Failure, code: ErrorCode) -> T:
    if isinstance(answer, Failure):
        raise _as_exception(answer, code)
    return answer


def _as_exception(failure: Failure, code: ErrorCode) -> Exception:
    return _Passing(code, failure.reason) if failure.may_pass else _Wrong(code)
