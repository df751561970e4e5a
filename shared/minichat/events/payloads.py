"""What leaves through the outbox: versioned payloads, each with the key that makes its effect happen once.

Fields are those of events-and-workers 2 and 4 and turns-and-quota 6. An event is sent with every member of its model.
In the outbox, members with their default are left out, to keep an item below the kilobyte at which its price doubles;
the relay puts them back. Changes are additive only.
"""

from datetime import datetime
from functools import cache
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, ValidationError

from minichat.domain.answer_end import CompletionSignal, Kind, Reason
from minichat.domain.usage import Usage, dedupe_key
from minichat.events.access import AuthorizationPublished, GrantChanged, RoleUsed
from minichat.events.base import Audited, Event
from minichat.events.decisions import PayloadPart as _Part
from minichat.events.decisions import PolicyDecisions, PublishedVersion
from minichat.events.erasures import EraseTask, ErasureCompleted, ErasureRequested
from minichat.events.exports import ExportEnded, ExportRequested, ExportTask
from minichat.events.references import ApiKeyRef, FrontierRef, SecondaryRef

DeletionReason = Literal["chat_soft_delete", "temporary_expired", "erased", "idle"]
"""Why a chat was deleted: by its owner, because it was temporary and nobody used it any more, with its owner, or
because nobody had used it for as long as its tenant keeps such."""


def whole(event_type: str, stored: str) -> str:
    """A stored event as it is sent; one that this version has no model for, or cannot read, is sent as stored."""
    model = _models().get(event_type)
    if model is None:
        return stored
    try:
        return model.model_validate_json(stored).payload()
    except ValidationError:
        # Its consumer reports it, and keeps it for an operator.
        return stored


@cache
def _models() -> dict[str, type[Event]]:
    found: dict[str, type[Event]] = {}
    left: list[type[Event]] = [Event]
    while left:
        subclasses = left.pop().__subclasses__()
        left += subclasses
        found |= {name: model for model in subclasses for name in get_args(model.model_fields["event_type"].annotation)}
    return found


class TokenUsage(_Part):
    """Tokens as the provider counted them."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_tokens: int = 0

    @classmethod
    def told(cls, usage: Usage) -> Self | None:
        """The payload of these numbers; None when they are unknown, which is not 0."""
        if not usage.known:
            return None
        return cls(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            cache_write_input_tokens=usage.cache_write_input_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        )


class CompletionRecord(_Part):
    """Whether an answer is complete, and if not, why: as in `done`."""

    kind: Kind
    reason: Reason | None = None

    @classmethod
    def told(cls, signal: CompletionSignal | None) -> Self | None:
        """The payload of this signal; None where there is no answer."""
        return None if signal is None else cls(kind=signal.kind, reason=signal.reason)


class UsageEvent(Event):
    """One settled turn, or one task of the system, for metering. Credits are micro-credits.

    A task of the system has a type, but neither user nor turn; no user pays for it.
    """

    queue = "usage"
    event_type: Literal["turn_usage"] = "turn_usage"
    user_id: str | None = None
    chat_id: str
    turn_id: str | None = None
    request_id: str
    # Here and below the default is what a plain turn says: its item is stored without it, so that it stays below 1 KB.
    # One that has more costs two units more.
    requester_type: str = "user"
    selected_model: str
    effective_model: str
    tier: Literal["standard", "premium"] = "standard"
    terminal_state: str = "completed"
    billing_outcome: str = "completed"
    settlement_method: str = "actual"
    usage: TokenUsage | None = None
    completion_signal: CompletionRecord | None = None
    reserved_credits_micro: int
    actual_credits_micro: int
    committed_credits_micro: int
    overshoot_capped: bool = False
    policy_version_applied: int
    tenant_policy_version: int = 0
    user_policy_version: int = 0
    web_search_calls: int = 0
    code_interpreter_calls: int = 0
    file_search_calls: int = 0
    image_inputs: int = 0
    # What it cost to run, at least: units of DynamoDB, and milliseconds of the function.
    writes: int = 0
    reads: int = 0
    ms: int = 0
    system_task_type: str | None = None
    timestamp: datetime

    def dedupe_key(self, event_id: str) -> str:
        """The key of the turn or task: its event may be sent twice, but counts once."""
        del event_id
        return dedupe_key(self.tenant_id, self.system_task_type or self.turn_id or "", self.request_id)


class _OfChat(Audited):
    chat_id: str


class Latency(_Part):
    """Milliseconds from the turn's start."""

    ttft_ms: int | None = None
    total_ms: int | None = None


class ToolCallCounts(_Part):
    """Calls of tools within the turn."""

    file_search_calls: int = 0
    web_search_calls: int = 0
    code_interpreter_calls: int = 0


class AttachmentUse(_Part):
    """An attachment of a message; `image_used_in_turn` when the image was sent to a provider."""

    attachment_id: str
    attachment_kind: Literal["document", "image"]
    filename: str | None = None
    content_type: str | None = None
    size_bytes: int | None = None
    image_used_in_turn: bool | None = None


class TurnEnded(_OfChat):
    """A turn reached its end; a cancelled one is `turn_failed` with error code `cancelled`.

    `prompt` and `response`, redacted and cut, are there when the deployment wants content in its audit trail.
    """

    event_type: Literal["turn_completed", "turn_failed"]
    user_id: str
    turn_id: str
    request_id: str
    selected_model: str
    effective_model: str
    policy_version_applied: int
    tenant_policy_version: int = 0
    user_policy_version: int = 0
    usage: TokenUsage | None = None
    completion_signal: CompletionRecord | None = None
    latency_ms: Latency
    policy_decisions: PolicyDecisions
    error_code: str | None = None
    attachments: list[AttachmentUse] = []  # noqa: RUF012  a model copies it
    tool_calls: ToolCallCounts
    prompt: str | None = None
    response: str | None = None


class TurnReplaced(_OfChat):
    """A turn was retried or edited: the new one took its place."""

    event_type: Literal["turn_retry", "turn_edit"]
    actor_user_id: str
    turn_id: str
    original_request_id: str
    new_request_id: str


class TurnDeleted(_OfChat):
    """The latest turn was deleted."""

    event_type: Literal["turn_delete"] = "turn_delete"
    actor_user_id: str
    turn_id: str
    request_id: str


class TurnCancelled(_OfChat):
    """Somebody asked a running turn to stop."""

    event_type: Literal["turn_cancel"] = "turn_cancel"
    actor_user_id: str
    turn_id: str
    request_id: str


class ReactionChanged(_OfChat):
    """The owner of a chat reacted to an answer, or took the reaction back."""

    event_type: Literal["reaction_set", "reaction_delete"]
    actor_user_id: str
    message_id: str
    request_id: str
    reaction: Literal["like", "dislike"] | None = None


class ChatDeleted(_OfChat):
    """A chat was deleted by its owner, or, when a temporary one expired, by the system on the owner's behalf."""

    event_type: Literal["chat_delete"] = "chat_delete"
    actor_user_id: str
    reason: DeletionReason = "chat_soft_delete"


class AttachmentDeleted(_OfChat):
    """An attachment was deleted."""

    event_type: Literal["attachment_delete"] = "attachment_delete"
    actor_user_id: str
    attachment_id: str
    attachment_kind: Literal["document", "image"] | None = None
    filename: str | None = None
    content_type: str | None = None
    size_bytes: int | None = None


class DecisionRefused(Audited):
    """A decision went against a caller: the tenant's licence, a quota, a rate, a kill switch, or who may do what.

    Of a rate, `quota_scope` is the limit's name, and `quota_tier` whose it is, the `user`'s or the `tenant`'s. Only the
    first of its kind in a minute leaves an event. `code` is that of the problem; `chat_id` is there when the request
    named a chat; `action` and `policies`, where a policy or none at all decided (`authorization`).
    """

    event_type: Literal["decision_refused"] = "decision_refused"
    actor_user_id: str
    decision: Literal["license", "quota", "rate", "kill_switch", "authorization"]
    code: str
    chat_id: str | None = None
    quota_scope: str | None = None
    quota_tier: str | None = None
    quota_period: str | None = None
    action: str | None = None
    policies: list[str] = []  # noqa: RUF012  a model copies it


class PolicyPublished(PublishedVersion, Audited):
    """Another version of a layer of the policy is in force: the deployment's, a tenant's or a user's."""

    event_type: Literal["policy_published"] = "policy_published"


class ApiKeyChanged(ApiKeyRef, Audited):
    """An administrator made an API key of the tenant, or revoked one."""

    event_type: Literal["api_key_create", "api_key_revoke"]
    actor_user_id: str


class ProvidersPublished(Audited):
    """Another version of provider entries is in force: the deployment's (`deployment`), or a tenant's overrides."""

    event_type: Literal["providers_published"] = "providers_published"
    version: int
    previous_version: int | None = None
    published_by: str


AuditEvent = Annotated[
    TurnEnded
    | TurnReplaced
    | TurnDeleted
    | TurnCancelled
    | ReactionChanged
    | ChatDeleted
    | AttachmentDeleted
    | DecisionRefused
    | RoleUsed
    | GrantChanged
    | AuthorizationPublished
    | PolicyPublished
    | ProvidersPublished
    | ApiKeyChanged
    | ErasureRequested
    | ErasureCompleted
    | ExportRequested
    | ExportEnded,
    Field(discriminator="event_type"),
]
"""Everything that the audit queue carries."""


class AttachmentCleanup(Event):
    """The provider's copy of a deleted attachment must go; `storage_backend` is the provider's id in the settings."""

    queue = "attachment-cleanup"
    event_type: Literal["attachment_cleanup"] = "attachment_cleanup"
    chat_id: str
    attachment_id: str
    provider_file_id: str | None = None
    vector_store_id: str | None = None
    storage_backend: str
    attachment_kind: Literal["document", "image"]
    deleted_at: datetime
    secondary_ref: SecondaryRef | None = None


class AttachmentExpected(Event):
    """An attachment was announced. This event is delayed, to check whether its file has arrived."""

    queue = "attachment-ingest"
    event_type: Literal["attachment_expected"] = "attachment_expected"
    chat_id: str
    attachment_id: str


class ChatCleanup(Event):
    """Everything of a deleted chat must go: provider resources first, its items after the retention grace."""

    queue = "chat-cleanup"
    event_type: Literal["chat_cleanup"] = "chat_cleanup"
    reason: DeletionReason = "chat_soft_delete"
    chat_id: str
    user_id: str
    system_request_id: str
    chat_deleted_at: datetime


Cleanup = Annotated[ChatCleanup | EraseTask | ExportTask, Field(discriminator="event_type")]
"""Everything that the queue of what disappears, or is exported, carries."""


class _SystemTask(Event):
    # `system_request_id` stays the same for every attempt; `user_id` is the chat's owner, who does not pay.
    queue = "thread-summary"
    chat_id: str
    user_id: str
    system_request_id: str


class ThreadSummaryTask(_SystemTask):
    """The visible messages of a chat after the base (without one, from the first) up to the target need a summary."""

    event_type: Literal["thread_summary_update"] = "thread_summary_update"
    system_task_type: Literal["thread_summary_update"]
    base_frontier: FrontierRef | None = None
    frozen_target: FrontierRef


class ChatTitleTask(_SystemTask):
    """A chat without a title needs one after its first exchange: these two messages."""

    event_type: Literal["chat_title"] = "chat_title"
    system_task_type: Literal["chat_title"]
    user_message_id: str
    assistant_message_id: str


class DocSummaryTask(_SystemTask):
    """A document that is ready needs a short summary."""

    event_type: Literal["doc_summary"] = "doc_summary"
    system_task_type: Literal["doc_summary"]
    attachment_id: str


SystemTask = ThreadSummaryTask | ChatTitleTask | DocSummaryTask
"""Everything that the queue of the system's own tasks carries."""
