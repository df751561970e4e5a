"""An answer as messages and turns show it, in the words of the last events of its stream (contract 1, 3)."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from minichat.domain import answer_end, citations, usage
from minichat.domain.answer_end import Kind, Reason
from minichat.domain.citations import Citation, Source
from minichat.domain.message import Message
from minichat.domain.stream import models_told
from minichat.domain.turn import QuotaDecision, Turn, TurnState


def never_null(schema: dict[str, Any]) -> None:
    """Describes a member as it is when present."""
    (given,) = (one for one in schema.pop("anyOf") if one != {"type": "null"})
    del schema["default"]
    schema.update(given)


Absent = Field(exclude_if=lambda value: value is None, json_schema_extra=never_null)
"""A member that is left out when there is nothing to say, and never null."""


class CompletionView(BaseModel):
    """Whether an answer is complete. A refusal has a reason when a filter refused, not the model itself."""

    kind: Kind
    reason: Annotated[Reason | None, Absent] = None


class SpanView(BaseModel):
    """Characters (code points) of the whole text."""

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]


class CitationView(BaseModel):
    """A source of an answer: a page has a `url`, a file of the chat an `attachment_id`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["url"]}, {"required": ["attachment_id"]}]})

    source: Source
    title: str
    url: Annotated[str | None, Absent] = None
    attachment_id: Annotated[UUID | None, Absent] = None
    snippet: str
    span: Annotated[SpanView | None, Absent] = None


class ToolCallsView(BaseModel):
    """How often an answer used each tool."""

    file_search: int
    web_search: int
    code_interpreter: int


class UsageView(BaseModel):
    """Tokens as the provider counted them."""

    input_tokens: int
    output_tokens: int
    model: str
    cache_read_input_tokens: Annotated[int | None, Absent] = None
    cache_write_input_tokens: Annotated[int | None, Absent] = None
    reasoning_tokens: Annotated[int | None, Absent] = None


def of_message(message: Message) -> dict[str, Any]:
    """The members that only an answer's message has."""
    if message.role != "assistant" or message.model is None:
        return {}
    selected = message.selected_model or message.model
    decision: QuotaDecision = "allow" if message.selected_model is None else "downgrade"
    return {
        "completion_signal": answer_end.told(message.completion_signal),
        "citations": [citations.told(one) for one in message.citations],
        "tool_calls": asdict(message.tool_calls),
        **models_told(message.model, selected, decision, message.downgrade_reason),
    }


def of_turn(turn: Turn, cited: Sequence[Citation]) -> dict[str, Any]:
    """A turn's view of its answer, with these citations; while it runs, the model that makes it."""
    made, is_running = turn.reserve, turn.state is TurnState.RUNNING
    return {
        "completion_signal": answer_end.told(turn.completion_signal),
        "citations": [citations.told(one) for one in cited] if turn.answered else None,
        "usage": usage.told(turn.usage, made.effective_model),
        "tool_calls": None if is_running else asdict(turn.tool_calls),
        **models_told(made.effective_model, made.selected_model, made.decision, made.downgrade_reason),
    }
