"""What a tenant and its users have used (events-and-workers 3): plain sums of what settled turns say."""

from dataclasses import astuple, dataclass, field
from datetime import datetime

from minichat.domain.identity import ChatId, RequestId, TenantId, UserId
from minichat.domain.spent import Spent
from minichat.domain.turn import Turn


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """Settled turns, what they were charged in micro-credits, their tokens, calls of tools, images that were looked at,
    and what they cost to run."""

    turns: int = 0
    committed_micro: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    web_searches: int = 0
    code_interpreter_calls: int = 0
    file_searches: int = 0
    image_inputs: int = 0
    write_units: int = 0
    read_units: int = 0
    function_ms: int = 0

    def __add__(self, other: "LedgerSums") -> "LedgerSums":
        return LedgerSums(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __neg__(self) -> "LedgerSums":
        return LedgerSums(*(-mine for mine in astuple(self)))


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One turn in the ledger, until it expires; `user_id` and `turn_id` are None for what no user asked for."""

    tenant_id: TenantId
    dedupe_key: str
    user_id: UserId | None
    chat_id: ChatId
    turn_id: str | None
    request_id: RequestId
    settled_at: datetime
    model: str
    premium: bool
    policy_version: int
    used: LedgerSums
    kept_until: datetime
    tenant_policy_version: int
    user_policy_version: int

    @property
    def day(self) -> str:
        """The UTC day that it counts in: that of its settlement."""
        return self.settled_at.date().isoformat()


def used_by(turn: Turn) -> LedgerSums:
    """What an ended turn used."""
    spent = turn.spent or Spent()
    return LedgerSums(
        turns=1,
        committed_micro=turn.committed_credits_micro or 0,
        input_tokens=turn.usage.input_tokens,
        output_tokens=turn.usage.output_tokens,
        web_searches=turn.tool_calls.web_search,
        code_interpreter_calls=turn.tool_calls.code_interpreter,
        file_searches=turn.tool_calls.file_search,
        image_inputs=turn.day_counts.image_inputs,
        write_units=spent.writes,
        read_units=spent.reads,
        function_ms=spent.milliseconds,
    )


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Two records of the same thing that disagree; of a total, also what it should be and what it was."""

    tenant_id: TenantId
    where: str
    says: str
    should_say: str
    total: "Total | None" = None
    seen: LedgerSums | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """What a user used on a day, or, without a user, all of a tenant; of a stored one, until when it is kept."""

    tenant_id: TenantId
    day: str
    user_id: UserId | None
    used: LedgerSums
    kept_until: datetime | None = field(default=None, compare=False)
