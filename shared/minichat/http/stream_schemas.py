"""Schemas of the events of a stream, for the OpenAPI document: `domain.stream` builds them (contract 3).

Only the document imports this module, on request: no cold start pays for these models.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from minichat.domain import stream
from minichat.domain.failure_codes import ERROR_MESSAGES
from minichat.domain.quota_left import Bucket
from minichat.domain.quota_periods import Period
from minichat.domain.turn import QuotaDecision
from minichat.http.answer_views import Absent, CitationView, CompletionView, UsageView
from minichat.http.sse import MEDIA_TYPE

REF = "#/components/schemas/{model}"


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

    # Or it would be an object of anything, and no other event's data could be told from it.
    model_config = ConfigDict(extra="forbid")


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

STREAM: dict[str, Any] = {
    "anyOf": [
        {
            "type": "string",
            "contentMediaType": MEDIA_TYPE,
            "contentSchema": {"$ref": REF.format(model="StreamEvent")},
            "description": "The stream as it comes: server-sent events.",
        },
        {"$ref": REF.format(model="StreamData")},
    ]
}
"""An answer that streams: text for who reads it whole, and for who reads event by event the data of each."""


def events() -> dict[str, Any]:
    """The schemas of all events, each with its name and its data, and those of any event and of any data."""
    named = {data.__name__.removesuffix("Data") + "Event": (kind, data) for kind, data in DATA.items()}
    refs = {stream.NAMES[kind]: REF.format(model=name) for name, (kind, _) in named.items()}
    return {name: _event(kind, data) for name, (kind, data) in named.items()} | {
        "StreamEvent": {
            "description": "An event of a stream, as a client has it that has read the JSON of its data.",
            "oneOf": [{"$ref": ref} for ref in refs.values()],
            "discriminator": {"propertyName": "event", "mapping": refs},
        },
        "StreamData": {
            "description": "The data of an event of a stream. Its fields tell which; so does the event's name.",
            "anyOf": [{"$ref": REF.format(model=data.__name__)} for data in DATA.values()],
        },
    }


def _event(kind: type[stream.StreamEvent], data: type[BaseModel]) -> dict[str, Any]:
    number = {"type": "string", "pattern": "^[0-9]+$", "description": "The event's number in the turn."}
    return {
        "type": "object",
        "description": data.__doc__,
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "const": stream.NAMES[kind]},
            "data": {"$ref": REF.format(model=data.__name__)},
            **({} if kind is stream.Ping else {"id": number}),
        },
    }
