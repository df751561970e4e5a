"""What the server answers, from its OpenAPI document.

Made from the code by `make docs`: change it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentDetail:
    """A file of a chat, and what became of it."""

    id: str
    filename: str
    content_type: str
    size_bytes: int
    status: Literal["pending", "uploaded", "ready", "failed"]
    kind: Literal["document", "image"]
    error_code: str | None = None
    """Why it failed: a stable word."""
    doc_summary: str | None = None
    """What a document is about, once that is known."""
    summary_updated_at: datetime | None = None
    img_thumbnail: ThumbnailView | None = None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentSummary:
    """A file of a message."""

    attachment_id: str
    kind: Literal["document", "image"]
    filename: str
    status: Literal["pending", "uploaded", "ready", "failed"]
    img_thumbnail: ThumbnailView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentUpload:
    """A file to be uploaded, and the form to upload it with."""

    id: str
    filename: str
    content_type: str
    size_bytes: int
    status: Literal["pending", "uploaded", "ready", "failed"]
    kind: Literal["document", "image"]
    error_code: str | None = None
    """Why it failed: a stable word."""
    doc_summary: str | None = None
    """What a document is about, once that is known."""
    summary_updated_at: datetime | None = None
    img_thumbnail: ThumbnailView | None = None
    created_at: datetime
    upload: UploadForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a turn was estimated, reserved, counted and charged, by which rule, and what it cost to run."""

    request_id: str
    state: Literal["running", "done", "error", "cancelled"]
    ended_by: Literal["provider", "caller", "stream", "watchdog", "service"] | None = None
    selected_model: str
    effective_model: str
    downgrade_reason: str | None = None
    policy_versions: VersionsView
    estimate: EstimateView
    rates: RatesView
    reserved: ReservedView
    counted: UsageView | None
    """What the provider counted; null when that is unknown."""
    tool_calls: ToolCallsView | None
    """Null while the turn runs."""
    charged: ChargedView | None
    """Null while the turn runs."""
    run: RunView | None
    """Null while it runs, and where an earlier version ended it."""
    kept_bytes: int
    """Of the turn and its messages, as they are stored now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargedView:
    """What was charged, and why. `actual`: what the provider counted. `actual_capped`: that was more
    than estimated, so what was reserved. `estimated`: the provider counted nothing, so the input as
    estimated and the text that was told, at most what was reserved. `released`: nothing.
    """

    credits_micro: int
    counted_credits_micro: int
    """What the provider counted, at these rates."""
    rule: Literal["actual", "actual_capped", "estimated", "released"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDetail:
    """A chat as its owner sees it."""

    id: str
    model: str
    title: str | None = None
    is_temporary: bool = False
    """Deleted by itself, and in no list."""
    message_count: int
    created_at: datetime
    updated_at: datetime
    running_request_id: str | None = None
    """The turn that is running now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CitationView:
    """A source of an answer: a page has a `url`, a file of the chat an `attachment_id`."""

    source: Literal["file", "web"]
    title: str
    url: str | None = None
    attachment_id: str | None = None
    snippet: str
    span: SpanView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionView:
    """Whether an answer is complete. A refusal has a reason when a filter refused, not the model itself."""

    kind: Literal["complete", "incomplete", "refusal"]
    reason: Literal["length", "content_filter", "pause", "deadline", "cancelled", "interrupted", "other"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOfUsage:
    """The settled turns of one day, in UTC."""

    day: date
    turns: int
    credits_micro: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateView:
    """Tokens as they were estimated before anything was sent: together those that were reserved."""

    message_tokens: int
    context_tokens: int
    """Instructions, summary, and recent messages."""
    image_tokens: int
    tool_tokens: int
    """Surcharges of the tools in play."""
    answer_tokens: int
    """The longest answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFileView:
    """A file of an export, and a link that anybody can fetch it with, for a while."""

    name: str
    size_bytes: int
    url: str
    url_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportView:
    """An export, and how far it is."""

    id: str
    scope: Literal["chat", "user", "tenant"]
    user_id: str | None
    """Whose data it has; null of a tenant."""
    chat_id: str | None
    state: Literal["running", "ready", "gone"]
    """`gone`: its chat was deleted before it was ready, or it was stopped; nothing of it is kept."""
    requested_at: datetime
    ended_at: datetime | None
    expires_at: datetime
    """Until then it can be fetched."""
    counts: dict[str, str]
    """How many lines of each type are written so far."""
    files: list[ExportFileView]
    """Once it is ready: JSON Lines, and the manifest that lists them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The service answers."""

    status: Literal["ok"] = "ok"
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """A message; user and assistant message of a turn share `request_id`. The members from
    `completion_signal` on are an assistant message's, and repeat the last events of its stream.
    """

    id: str
    request_id: str
    role: Literal["user", "assistant", "system"]
    content: str
    attachments: list[AttachmentSummary]
    my_reaction: Literal["like", "dislike"] | None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    created_at: datetime
    completion_signal: CompletionView | None = None
    citations: list[CitationView] | None = None
    tool_calls: ToolCallsView | None = None
    effective_model: str | None = None
    selected_model: str | None = None
    quota_decision: Literal["allow", "downgrade"] | None = None
    downgrade_from: str | None = None
    downgrade_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """Every model that may be chosen, best first."""

    items: list[ModelView]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model that may be chosen."""

    model_id: str
    display_name: str
    tier: Literal["standard", "premium"]
    multiplier_display: str
    description: str | None = None
    icon: str | None = None
    multimodal_capabilities: list[str]
    context_window: int
    """Tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaCount:
    """One daily limit, named by the `quota_scope` of its refusal."""

    scope: Literal["web_search", "code_interpreter", "file_search", "image_inputs", "uploads"]
    unit: Literal["calls", "images", "files", "bytes"]
    period: Literal["daily"]
    limit: int
    used: int
    remaining: int
    next_reset: datetime
    exhausted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaPeriod:
    """One bucket in one period, in micro-credits."""

    period: Literal["daily", "monthly"]
    limit_credits_micro: int
    used_credits_micro: int
    remaining_credits_micro: int
    remaining_percentage: int
    next_reset: datetime
    warning: bool
    exhausted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaStatus:
    """Where a user stands. A limit of credits that is 0 is left out."""

    tiers: list[QuotaTier]
    counts: list[QuotaCount]
    warning_threshold_pct: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTier:
    """One bucket. `total` is the ceiling over everything, `premium` a cap within it."""

    tier: Literal["premium", "total"]
    periods: list[QuotaPeriod]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaWarning:
    """What is left of one bucket of the quota in one period."""

    tier: Literal["total", "premium"]
    period: Literal["daily", "monthly"]
    remaining_percentage: int
    warning: bool
    exhausted: bool
    next_reset: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RatesView:
    """The model's prices when the turn began, by which it is reserved and charged; each part is rounded up."""

    input_credits_micro_per_million: int
    output_credits_micro_per_million: int
    bytes_per_token: int
    """By which text is estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactionView:
    """The caller's reaction to an answer, and since when."""

    message_id: str
    reaction: Literal["like", "dislike"]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservedView:
    """What was set aside until the turn ended."""

    tokens: int
    credits_micro: int
    tool_calls: ToolCallsView
    image_inputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """What the turn cost to run, as far as it was known when it ended: at least. Without what came
    before or after it: requests of its caller that read, cancelled, retried or deleted it, and the
    consumers of its events. 0 is what the process that ended it did not know.
    """

    write_units: WrittenView
    read_units: int
    function_ms: int
    """From the request to its end, in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedFile:
    """A file of the chat in which `file_search` found something."""

    attachment_id: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanView:
    """Characters (code points) of the whole text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryApplied:
    """The summary that stands for the older part of the chat in the prompt."""

    token_estimate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailView:
    """A small picture of an image."""

    content_type: Literal["image/webp"] = "image/webp"
    width: int
    height: int
    data_base64: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallsView:
    """How often an answer used each tool."""

    file_search: int
    web_search: int
    code_interpreter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDetailsView:
    """With `done`, what the provider reports about the tool."""

    files_searched: list[SearchedFile] | None = None
    output: str | None = None
    """What the code of `code_interpreter` printed, 8 KiB."""
    query: str | None = None
    """What `web_search` looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStatus:
    """Where a turn stands, and what the last event of its stream says; `usage` is null while unknown.
    `completion_signal` is there once there is an answer.
    """

    request_id: str
    state: Literal["running", "done", "error", "cancelled"]
    error_code: str | None = None
    assistant_message_id: str | None = None
    updated_at: datetime
    completion_signal: CompletionView | None = None
    citations: list[CitationView] | None = None
    usage: UsageView | None
    tool_calls: ToolCallsView | None = None
    effective_model: str
    selected_model: str
    quota_decision: Literal["allow", "downgrade"]
    downgrade_from: str | None = None
    downgrade_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadForm:
    """A form to post as multipart/form-data: these fields first, then the file, named `file`, as the last one."""

    url: str
    fields: dict[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """Days on which something was used, the first day first."""

    items: list[DayOfUsage]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageView:
    """Tokens as the provider counted them."""

    input_tokens: int
    output_tokens: int
    model: str
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionsView:
    """Versions of the policy's layers that it was admitted with; 0 where there is none."""

    deployment: int
    tenant: int
    user: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenView:
    """Write units of DynamoDB, by what they were for."""

    begin: int
    """The transaction that began the turn."""
    stream: int
    """Parts of the stream, and signs of life."""
    end: int
    """The transaction that ended it: at least, by the sizes of its items."""
    together: int
