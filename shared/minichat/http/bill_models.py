"""The bill of a turn as it is shown (contract 2)."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from minichat.domain import bill
from minichat.domain.turn import Turn
from minichat.http.answer_views import Absent, ToolCallsView, UsageView, of_turn


class EstimateView(BaseModel):
    """Tokens as they were estimated before anything was sent: together those that were reserved."""

    message_tokens: int
    context_tokens: Annotated[int, Field(description="Instructions, summary, and recent messages.")]
    image_tokens: int
    tool_tokens: Annotated[int, Field(description="Surcharges of the tools in play.")]
    answer_tokens: Annotated[int, Field(description="The longest answer.")]


class RatesView(BaseModel):
    """The model's prices when the turn began, by which it is reserved and charged; each part is rounded up."""

    input_credits_micro_per_million: int
    output_credits_micro_per_million: int
    bytes_per_token: Annotated[int, Field(description="By which text is estimated.")]


class ReservedView(BaseModel):
    """What was set aside until the turn ended."""

    tokens: int
    credits_micro: int
    tool_calls: ToolCallsView
    image_inputs: int


class ChargedView(BaseModel):
    """What was charged, and why.

    `actual`: what the provider counted. `actual_capped`: that was more than estimated, so what was reserved.
    `estimated`: the provider counted nothing, so the input as estimated and the text that was told, at most what was
    reserved. `released`: nothing.
    """

    credits_micro: int
    counted_credits_micro: Annotated[int, Field(description="What the provider counted, at these rates.")]
    rule: bill.Rule


class WrittenView(BaseModel):
    """Write units of DynamoDB, by what they were for."""

    begin: Annotated[int, Field(description="The transaction that began the turn.")]
    stream: Annotated[int, Field(description="Parts of the stream, and signs of life.")]
    end: Annotated[int, Field(description="The transaction that ended it: at least, by the sizes of its items.")]
    together: int


class RunView(BaseModel):
    """What the turn cost to run, as far as it was known when it ended: at least.

    Without what came before or after it: requests of its caller that read, cancelled, retried or deleted it, and the
    consumers of its events. 0 is what the process that ended it did not know.
    """

    write_units: WrittenView
    read_units: int
    function_ms: Annotated[int, Field(description="From the request to its end, in milliseconds.")]


class VersionsView(BaseModel):
    """Versions of the policy's layers that it was admitted with; 0 where there is none."""

    deployment: int
    tenant: int
    user: int


class Bill(BaseModel):
    """What a turn was estimated, reserved, counted and charged, by which rule, and what it cost to run."""

    request_id: UUID
    state: Literal["running", "done", "error", "cancelled"]
    ended_by: Annotated[bill.EndedBy | None, Absent] = None
    selected_model: str
    effective_model: str
    downgrade_reason: Annotated[str | None, Absent] = None
    policy_versions: VersionsView
    estimate: EstimateView
    rates: RatesView
    reserved: ReservedView
    counted: Annotated[UsageView | None, Field(description="What the provider counted; null when that is unknown.")]
    tool_calls: Annotated[ToolCallsView | None, Field(description="Null while the turn runs.")]
    charged: Annotated[ChargedView | None, Field(description="Null while the turn runs.")]
    run: Annotated[RunView | None, Field(description="Null while it runs, and where an earlier version ended it.")]
    kept_bytes: Annotated[int, Field(description="Of the turn and its messages, as they are stored now.")]


def bill_of(turn: Turn, kept_bytes: int) -> Bill:
    """The bill of a turn that keeps so many bytes."""
    reserve, shown, estimate = turn.reserve, of_turn(turn, ()), bill.estimate(turn)
    return Bill(
        request_id=UUID(turn.request_id),
        state=turn.state.public,  # type: ignore[arg-type]  # the property maps to these four words
        ended_by=bill.ended_by(turn),
        selected_model=reserve.selected_model,
        effective_model=reserve.effective_model,
        downgrade_reason=reserve.downgrade_reason,
        policy_versions=VersionsView(
            deployment=reserve.policy_version, tenant=reserve.tenant_policy_version, user=reserve.user_policy_version
        ),
        estimate=EstimateView(
            message_tokens=estimate.message,
            context_tokens=estimate.context,
            image_tokens=estimate.images,
            tool_tokens=estimate.tools,
            answer_tokens=estimate.answer,
        ),
        rates=RatesView(
            input_credits_micro_per_million=reserve.input_multiplier,
            output_credits_micro_per_million=reserve.output_multiplier,
            bytes_per_token=reserve.bytes_per_token,
        ),
        reserved=ReservedView(
            tokens=reserve.tokens,
            credits_micro=reserve.credits_micro,
            tool_calls=ToolCallsView(
                web_search=reserve.web_search_calls,
                code_interpreter=reserve.code_interpreter_calls,
                file_search=reserve.file_search_calls,
            ),
            image_inputs=reserve.image_inputs,
        ),
        counted=shown["usage"],
        tool_calls=shown["tool_calls"],
        charged=_charged(turn),
        run=_run(turn),
        kept_bytes=kept_bytes,
    )


def _charged(turn: Turn) -> ChargedView | None:
    if (rule := bill.rule(turn)) is None:
        return None
    return ChargedView(
        credits_micro=turn.committed_credits_micro or 0, counted_credits_micro=bill.counted_micro(turn), rule=rule
    )


def _run(turn: Turn) -> RunView | None:
    if (spent := turn.spent) is None:
        return None
    written = WrittenView(
        begin=spent.begun_writes, stream=spent.told_writes, end=spent.ended_writes, together=spent.writes
    )
    return RunView(write_units=written, read_units=spent.reads, function_ms=spent.milliseconds)
