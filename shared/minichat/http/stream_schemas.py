"""Schemas of the `data` of each stream event, for the OpenAPI document: `domain.stream` builds it (contract 3).

Only the document imports this module, on request: no cold start pays for these models.
"""

from datetime import datetime
from typing import Annotated, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, Field

from minichat.domain import stream
from minichat.domain.failure_codes import ERROR_MESSAGES
from minichat.domain.quota_left import Bucket
from minichat.domain.quota_periods import Period
from minichat.domain.turn import QuotaDecision
from minichat.http.answer_views import Absent, CitationView, CompletionView, UsageView


class SummaryApplied(BaseModel):
    """The summary that stands for the older part of the chat in the prompt."""

    token_estimate: Annotated[int, Field(ge=0)]


class StreamStartedData(BaseModel):
    """The turn is durable, and its answer begins."""

    request_id: UUID
    message_id: UUID
    is_new_turn: bool
    thread_summary_applied: Annotated[SummaryApplied | None, Absent] = None


class DeltaData(BaseModel):
    """More text."""

    type: Literal["text"]
    content: str


class SearchedFile(BaseModel):
    """A file of the chat in which `file_search` found something."""

    attachment_id: UUID
    title: str


class ToolDetailsView(BaseModel):
    """With `done`, what the provider reports about the tool."""

    files_searched: Annotated[list[SearchedFile] | None, Absent] = None
    output: Annotated[str | None, Absent, Field(description="What the code of `code_interpreter` printed, 8 KiB.")] = (
        None
    )
    query: Annotated[str | None, Absent, Field(description="What `web_search` looked for.")] = None


class ToolData(BaseModel):
    """A tool started, goes on, or is done."""

    phase: Literal["start", "progress", "done"]
    name: Literal["file_search", "web_search", "code_interpreter"]
    details: ToolDetailsView


class CitationsData(BaseModel):
    """Sources of the answer."""

    items: Annotated[list[CitationView], Field(min_length=1)]


class QuotaWarning(BaseModel):
    """What is left of one bucket of the quota in one period."""

    tier: Bucket
    period: Period
    remaining_percentage: Annotated[int, Field(ge=0, le=100)]
    warning: bool
    exhausted: bool
    next_reset: Annotated[datetime | None, Absent] = None


class DoneData(BaseModel):
    """The end of an answer, complete or cut."""

    completion_signal: CompletionView
    usage: Annotated[UsageView | None, Field(description="Null when it is not known.")]
    effective_model: str
    selected_model: str
    quota_decision: QuotaDecision
    downgrade_from: Annotated[str | None, Absent] = None
    downgrade_reason: Annotated[str | None, Absent] = None
    quota_warnings: Annotated[list[QuotaWarning] | None, Absent] = None


class ErrorData(BaseModel):
    """The end of a failed or cancelled answer."""

    code: Annotated[str, Field(json_schema_extra={"enum": sorted(ERROR_MESSAGES)})]
    message: str


class PingData(BaseModel):
    """Nothing new."""


DATA: dict[type[stream.StreamEvent], type[BaseModel]] = {
    stream.Started: StreamStartedData,
    stream.Delta: DeltaData,
    stream.Tool: ToolData,
    stream.Citations: CitationsData,
    stream.Done: DoneData,
    stream.Error: ErrorData,
    stream.Ping: PingData,
}
assert {*DATA} == set(get_args(stream.StreamEvent)), "every event that can be told is described"
