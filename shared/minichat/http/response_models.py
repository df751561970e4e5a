"""Bodies of responses (contract 1)."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field

from minichat.domain.attachment import Attachment, Thumbnail
from minichat.domain.chat import Chat
from minichat.domain.citations import Citation
from minichat.domain.day_counts import Counted
from minichat.domain.message import Message
from minichat.domain.policy import Model
from minichat.domain.quota_left import BUCKETS, Remaining
from minichat.domain.turn import QuotaDecision, Turn, TurnState
from minichat.http.answer_views import (
    Absent,
    CitationView,
    CompletionView,
    ToolCallsView,
    UsageView,
    of_message,
    of_turn,
)
from minichat.storage.objects import Form

T = TypeVar("T")


class ChatDetail(BaseModel):
    """A chat as its owner sees it."""

    id: UUID
    model: str
    title: Annotated[str | None, Absent] = None
    is_temporary: Annotated[bool, Field(description="Deleted by itself, and in no list.")] = False
    message_count: int
    created_at: datetime
    updated_at: datetime
    running_request_id: Annotated[UUID | None, Absent, Field(description="The turn that is running now.")] = None


class ThumbnailView(BaseModel):
    """A small picture of an image."""

    content_type: Literal["image/webp"] = "image/webp"
    width: int
    height: int
    data_base64: str


class AttachmentSummary(BaseModel):
    """A file of a message."""

    attachment_id: UUID
    kind: Literal["document", "image"]
    filename: str
    status: Literal["pending", "uploaded", "ready", "failed"]
    img_thumbnail: Annotated[ThumbnailView | None, Absent] = None


class AttachmentDetail(BaseModel):
    """A file of a chat, and what became of it."""

    id: UUID
    filename: str
    content_type: str
    size_bytes: int
    status: Literal["pending", "uploaded", "ready", "failed"]
    kind: Literal["document", "image"]
    error_code: Annotated[str | None, Absent, Field(description="Why it failed: a stable word.")] = None
    doc_summary: Annotated[str | None, Absent, Field(description="What a document is about, once that is known.")] = (
        None
    )
    summary_updated_at: Annotated[datetime | None, Absent] = None
    img_thumbnail: Annotated[ThumbnailView | None, Absent] = None
    created_at: datetime


class UploadForm(BaseModel):
    """A form to post as multipart/form-data: these fields first, then the file, named `file`, as the last one."""

    url: str
    fields: dict[str, str]
    expires_at: datetime


class AttachmentUpload(AttachmentDetail):
    """A file to be uploaded, and the form to upload it with."""

    upload: UploadForm


class MessageView(BaseModel):
    """A message; user and assistant message of a turn share `request_id`.

    The members from `completion_signal` on are an assistant message's, and repeat the last events of its stream.
    """

    id: UUID
    request_id: UUID
    role: Literal["user", "assistant", "system"]
    content: str
    attachments: list[AttachmentSummary]
    my_reaction: Literal["like", "dislike"] | None
    model: Annotated[str | None, Absent] = None
    input_tokens: Annotated[int | None, Absent] = None
    output_tokens: Annotated[int | None, Absent] = None
    created_at: datetime
    completion_signal: Annotated[CompletionView | None, Absent] = None
    citations: Annotated[list[CitationView] | None, Absent] = None
    tool_calls: Annotated[ToolCallsView | None, Absent] = None
    effective_model: Annotated[str | None, Absent] = None
    selected_model: Annotated[str | None, Absent] = None
    quota_decision: Annotated[QuotaDecision | None, Absent] = None
    downgrade_from: Annotated[str | None, Absent] = None
    downgrade_reason: Annotated[str | None, Absent] = None


class SelectedMessageView(BaseModel):
    """A message with the members that `$select` named."""

    id: UUID | None = None
    request_id: UUID | None = None
    role: Literal["user", "assistant", "system"] | None = None
    content: str | None = None
    attachments: list[AttachmentSummary] | None = None
    my_reaction: Literal["like", "dislike"] | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    created_at: datetime | None = None
    completion_signal: CompletionView | None = None
    citations: list[CitationView] | None = None
    tool_calls: ToolCallsView | None = None
    effective_model: str | None = None
    selected_model: str | None = None
    quota_decision: QuotaDecision | None = None
    downgrade_from: str | None = None
    downgrade_reason: str | None = None


class ReactionView(BaseModel):
    """The caller's reaction to an answer, and since when."""

    message_id: UUID
    reaction: Literal["like", "dislike"]
    created_at: datetime


class PageInfo(BaseModel):
    """How to page on."""

    limit: int
    next_cursor: str | None
    prev_cursor: str | None


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    page_info: PageInfo


class TurnStatus(BaseModel):
    """Where a turn stands, and what the last event of its stream says; `usage` is null while unknown.

    `completion_signal` is there once there is an answer.
    """

    request_id: UUID
    state: Literal["running", "done", "error", "cancelled"]
    error_code: Annotated[str | None, Absent] = None
    assistant_message_id: Annotated[UUID | None, Absent] = None
    updated_at: datetime
    completion_signal: Annotated[CompletionView | None, Absent] = None
    citations: Annotated[list[CitationView] | None, Absent] = None
    usage: UsageView | None
    tool_calls: Annotated[ToolCallsView | None, Absent] = None
    effective_model: str
    selected_model: str
    quota_decision: QuotaDecision
    downgrade_from: Annotated[str | None, Absent] = None
    downgrade_reason: Annotated[str | None, Absent] = None


class ModelView(BaseModel):
    """A model that may be chosen."""

    model_id: str
    display_name: str
    tier: Literal["standard", "premium"]
    multiplier_display: str
    description: Annotated[str | None, Absent] = None
    icon: Annotated[str | None, Absent] = None
    multimodal_capabilities: list[str]
    context_window: Annotated[int, Field(description="Tokens.")]


class ModelList(BaseModel):
    """Every model that may be chosen, best first."""

    items: list[ModelView]


class QuotaPeriod(BaseModel):
    """One bucket in one period, in micro-credits."""

    period: Literal["daily", "monthly"]
    limit_credits_micro: int
    used_credits_micro: int
    remaining_credits_micro: int
    remaining_percentage: Annotated[int, Field(ge=0, le=100)]
    next_reset: datetime
    warning: bool
    exhausted: bool


class QuotaTier(BaseModel):
    """One bucket. `total` is the ceiling over everything, `premium` a cap within it."""

    tier: Literal["premium", "total"]
    periods: list[QuotaPeriod]


class QuotaCount(BaseModel):
    """One daily limit, named by the `quota_scope` of its refusal."""

    scope: Literal["web_search", "code_interpreter", "file_search", "image_inputs", "uploads"]
    unit: Literal["calls", "images", "files", "bytes"]
    period: Literal["daily"]
    limit: int
    used: int
    remaining: int
    next_reset: datetime
    exhausted: bool


class QuotaStatus(BaseModel):
    """Where a user stands. A limit of credits that is 0 is left out."""

    tiers: list[QuotaTier]
    counts: list[QuotaCount]
    warning_threshold_pct: int


class Health(BaseModel):
    """The service answers."""

    status: Literal["ok"] = "ok"
    version: str


def chat_detail(chat: Chat) -> ChatDetail:
    """A chat as it is shown."""
    return ChatDetail(
        id=UUID(chat.chat_id),
        model=chat.model,
        title=chat.title,
        is_temporary=chat.is_temporary,
        message_count=chat.message_count,
        created_at=chat.created_at,
        updated_at=chat.updated_at,
        running_request_id=UUID(chat.running_request_id) if chat.running_request_id else None,
    )


def message_view(message: Message, attachments: Mapping[str, AttachmentSummary]) -> MessageView:
    """A message as it is shown, with those of its attachments that are among these."""
    return MessageView(
        id=UUID(message.message_id),
        request_id=UUID(message.request_id),
        role=message.role,
        content=message.content,
        attachments=[attachments[one] for one in message.attachment_ids if one in attachments],
        my_reaction=message.reaction,
        model=message.model,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        created_at=message.created_at,
        **of_message(message),
    )


def turn_status(turn: Turn, citations: Sequence[Citation] = ()) -> TurnStatus:
    """A turn as it is shown, with the citations of its answer; an error code only when it failed, an answer only when
    there is one."""
    return TurnStatus(
        request_id=UUID(turn.request_id),
        state=turn.state.public,  # type: ignore[arg-type]  # the property maps to these four words
        error_code=turn.error_code if turn.state is TurnState.FAILED else None,
        assistant_message_id=UUID(turn.assistant_message_id) if turn.answered else None,
        updated_at=turn.updated_at,
        **of_turn(turn, citations),
    )


def attachment_detail(attachment: Attachment) -> AttachmentDetail:
    """An attachment as its owner sees it, without the provider's data."""
    return AttachmentDetail.model_validate(_attachment(attachment))


def attachment_upload(attachment: Attachment, form: Form, seconds: int) -> AttachmentUpload:
    """An attachment with its upload form, which is valid for that many seconds."""
    expires_at = attachment.created_at + timedelta(seconds=seconds)
    upload = UploadForm(url=form.url, fields=dict(form.fields), expires_at=expires_at)
    return AttachmentUpload.model_validate({**_attachment(attachment), "upload": upload})


def attachment_summary(attachment: Attachment, *, pictured: bool) -> AttachmentSummary:
    """An attachment as a message shows it, with its thumbnail or without."""
    return AttachmentSummary(
        attachment_id=UUID(attachment.attachment_id),
        kind=attachment.kind,
        filename=attachment.filename,
        status=attachment.status.value,
        img_thumbnail=_thumbnail(attachment.thumbnail) if pictured else None,
    )


def _thumbnail(thumbnail: Thumbnail | None) -> ThumbnailView | None:
    if thumbnail is None:
        return None
    return ThumbnailView(width=thumbnail.width, height=thumbnail.height, data_base64=b64encode(thumbnail.data).decode())


def _attachment(attachment: Attachment) -> dict[str, object]:
    return {
        "id": attachment.attachment_id,
        "filename": attachment.filename,
        "content_type": attachment.content_type,
        "size_bytes": attachment.size_bytes,
        "status": attachment.status,
        "kind": attachment.kind,
        "error_code": attachment.error_code,
        "doc_summary": attachment.summary,
        "summary_updated_at": attachment.summarized_at,
        "img_thumbnail": _thumbnail(attachment.thumbnail),
        "created_at": attachment.created_at,
    }


def quota_status(found: Sequence[Remaining], counts: Sequence[Counted], warning_threshold_pct: int) -> QuotaStatus:
    """What is left in each tier, and of each daily limit."""
    tiers = [
        QuotaTier(tier=bucket, periods=[_quota_period(one) for one in found if one.bucket == bucket])
        for bucket in BUCKETS
    ]
    told = [_quota_count(one) for one in counts]
    return QuotaStatus(tiers=tiers, counts=told, warning_threshold_pct=warning_threshold_pct)


def _quota_count(one: Counted) -> QuotaCount:
    return QuotaCount(
        scope=one.scope,
        unit=one.unit,
        period="daily",
        limit=one.limit,
        used=one.used,
        remaining=max(one.limit - one.used, 0),
        next_reset=one.next_reset,
        exhausted=one.used >= one.limit,
    )


def _quota_period(one: Remaining) -> QuotaPeriod:
    return QuotaPeriod(
        period=one.period,
        limit_credits_micro=one.limit_micro,
        used_credits_micro=one.used_micro,
        remaining_credits_micro=max(one.limit_micro - one.used_micro, 0),
        remaining_percentage=one.percentage,
        next_reset=one.next_reset,
        warning=one.warning,
        exhausted=one.exhausted,
    )


def model_view(model: Model) -> ModelView:
    """A model as it is shown: no provider, no price, no prompt."""
    return ModelView(
        model_id=model.id,
        display_name=model.display_name,
        tier=model.tier,
        multiplier_display=model.multiplier_display,
        description=model.description or None,
        icon=model.icon or None,
        multimodal_capabilities=list(model.multimodal_capabilities),
        context_window=model.context_window,
    )
