"""The turn: its state machine, and what was reserved for it (turns-and-quota 1)."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from minichat.domain import answer_end
from minichat.domain.answer_end import CompletionSignal
from minichat.domain.day_counts import DayCounts
from minichat.domain.errors import TurnNotFound
from minichat.domain.identity import AttachmentId, ChatId, MessageId, RequestId, SubjectType, TenantId, UserId
from minichat.domain.spent import Spent
from minichat.domain.usage import Usage

QuotaDecision = Literal["allow", "downgrade"]
SettlementMethod = Literal["actual", "estimated", "released"]


class TurnState(StrEnum):
    """`RUNNING` leads to exactly one of the others, and none of them leads anywhere."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def public(self) -> str:
        """The word the API uses: completed reads `done`, failed reads `error`."""
        return {"completed": "done", "failed": "error"}.get(self.value, self.value)


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """A number of calls of each tool: what one turn made, or what it may make."""

    web_search: int = 0
    code_interpreter: int = 0
    file_search: int = 0


@dataclass(frozen=True, slots=True)
class Reserve:
    """What a turn was admitted with; immutable, and the only thing that settlement reads (turns-and-quota 1, 6).

    The multipliers are those of `effective_model` in these versions of the policy's layers: a turn settles at the
    prices of its own start without looking a policy up.
    """

    tokens: int
    max_output_tokens: int
    credits_micro: int
    policy_version: int
    selected_model: str
    effective_model: str
    generation_floor: int
    input_multiplier: int
    output_multiplier: int
    daily_period: str
    monthly_period: str
    premium: bool = False
    decision: QuotaDecision = "allow"
    downgrade_reason: str | None = None
    # The most calls that it may make, and its images, set aside from the day's; 0 in a turn that an earlier version
    # began.
    web_search_calls: int = 0
    code_interpreter_calls: int = 0
    file_search_calls: int = 0
    image_inputs: int = 0
    bytes_per_token: int = 4
    # Of the layers below the deployment's; 0 where there was none.
    tenant_policy_version: int = 0
    user_policy_version: int = 0
    # 1 when it counts as a turn in flight until it ends; 0 in a turn that an earlier version began.
    in_flight: int = 0
    # The same of its tenant's counters; 0 where the tenant had no limit when it began.
    tenant_in_flight: int = 0
    # What of `tokens` is estimated for the conversation so far and the instructions, for images, and for tools; the
    # rest is the message itself and the longest answer. 0 in a turn that an earlier version began.
    context_tokens: int = 0
    image_tokens: int = 0
    tool_tokens: int = 0

    @property
    def day_counts(self) -> DayCounts:
        """What is set aside from the day's numbers."""
        return DayCounts(self.web_search_calls, self.code_interpreter_calls, self.file_search_calls, self.image_inputs)

    def used(self, calls: ToolCalls, method: SettlementMethod | None) -> DayCounts:
        """What a turn with these calls, settled so, used of the day's numbers.

        Its images count when a model was paid to look at them: all of them, or none when the turn was released.
        """
        images = 0 if method == "released" else self.image_inputs
        return DayCounts(calls.web_search, calls.code_interpreter, calls.file_search, images)


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message and the answer to it. `messages` counts its visible messages: 1, and 2 once answered."""

    tenant_id: TenantId
    chat_id: ChatId
    request_id: RequestId
    turn_id: str
    requester_type: SubjectType
    requester_user_id: UserId
    state: TurnState
    fingerprint: str
    user_message_id: MessageId
    assistant_message_id: MessageId
    started_at: datetime
    last_progress_at: datetime
    reserve: Reserve
    messages: int = 1
    prev_request_id: RequestId | None = None
    web_search_enabled: bool = False
    # What its message was sent with, and which of those are images.
    attachment_ids: tuple[AttachmentId, ...] = ()
    image_ids: tuple[AttachmentId, ...] = ()
    # The estimated tokens of the summary that its prompt had.
    summary_tokens: int | None = None
    cancel_requested_at: datetime | None = None
    provider_request_started_at: datetime | None = None
    completed_at: datetime | None = None
    error_code: str | None = None
    error_detail: str | None = None
    usage: Usage = field(default_factory=Usage)
    tool_calls: ToolCalls = field(default_factory=ToolCalls)
    provider_response_id: str | None = None
    # Whether its answer cites anything, and how a completed turn's answer is cut.
    cites: bool = False
    cut: CompletionSignal | None = None
    committed_credits_micro: int | None = None
    settlement_method: SettlementMethod | None = None
    deleted_at: datetime | None = None
    replaced_by_request_id: RequestId | None = None
    # How many events of its stream are stored, known once it ended, and the number of the terminal one when it is not
    # among them: whoever ended the turn did not stream it.
    events_stored: int | None = None
    terminal_number: int | None = None
    # The process that makes its answer, where that is not the one that began it.
    teller: str | None = None
    # What it cost to run; None while it runs, and in a turn that an earlier version ended.
    spent: Spent | None = None

    @property
    def answered(self) -> bool:
        """Whether an assistant message exists: a completed turn, or a cancelled or abandoned one that had text."""
        return self.messages > 1

    @property
    def day_counts(self) -> DayCounts:
        """What it adds to the numbers of its first day: what is set aside while it runs, then what it used."""
        if self.state is TurnState.RUNNING:
            return self.reserve.day_counts
        return self.reserve.used(self.tool_calls, self.settlement_method)

    @property
    def completion_signal(self) -> CompletionSignal | None:
        """Whether its answer is whole; None where there is no answer."""
        if not self.answered:
            return None
        if self.state is TurnState.COMPLETED:
            return self.cut or answer_end.COMPLETE
        return answer_end.left_partial(cancelled=self.state is TurnState.CANCELLED)

    @property
    def updated_at(self) -> datetime:
        """The last change of the turn that a client can see."""
        return self.completed_at or self.last_progress_at


def readable(turn: Turn | None) -> Turn:
    """The turn, unless it does not exist or was deleted or replaced.

    Raises TurnNotFound (contract 2: reading a deleted turn is 404).
    """
    if turn is None or turn.deleted_at is not None:
        raise TurnNotFound
    return turn
