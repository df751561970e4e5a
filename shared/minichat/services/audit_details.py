"""What the audit trail says about the caller of a request, and about a turn besides its end: the decisions that let it
run, and its attachments.
"""

from datetime import datetime
from typing import TypedDict

from minichat.auth_settings import Auth
from minichat.domain.attachment import Attachment
from minichat.domain.identity import AttachmentId, Call, ChatId
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn, TurnState
from minichat.events.decisions import LicenseDecision, PolicyDecisions, QuotaDecisionRecord
from minichat.events.payloads import (
    AttachmentDeleted,
    AttachmentUse,
    CompletionRecord,
    Latency,
    TokenUsage,
    ToolCallCounts,
    TurnEnded,
)
from minichat.settings import Settings
from minichat.storage import attachments, messages

CALLS_EXCEEDED = "_calls_exceeded"


class ByCaller(TypedDict):
    """The members of an audit event that come from its request."""

    tenant_id: str
    timestamp: datetime
    requester_type: str
    trace_id: str | None
    chat_id: str
    actor_user_id: str


def by(call: Call, chat_id: ChatId) -> ByCaller:
    """Who did something to this chat of theirs, when, and with which trace."""
    return ByCaller(
        tenant_id=call.caller.tenant_id,
        timestamp=call.now,
        requester_type=call.caller.subject_type,
        trace_id=call.trace_id or None,
        chat_id=chat_id,
        actor_user_id=call.caller.user_id,
    )


def turn_ended(call: Call, turn: Turn, ending: Ending, settings: Settings) -> TurnEnded:
    """The audit event of a turn's end. Raises ServiceUnavailable."""
    completed = ending.state is TurnState.COMPLETED
    cancelled = ending.state is TurnState.CANCELLED
    return TurnEnded(
        event_type="turn_completed" if completed else "turn_failed",
        tenant_id=turn.tenant_id,
        timestamp=call.now,
        requester_type=turn.requester_type,
        trace_id=call.trace_id or None,
        user_id=turn.requester_user_id,
        chat_id=turn.chat_id,
        turn_id=turn.turn_id,
        request_id=turn.request_id,
        selected_model=turn.reserve.selected_model,
        effective_model=turn.reserve.effective_model,
        policy_version_applied=turn.reserve.policy_version,
        tenant_policy_version=turn.reserve.tenant_policy_version,
        user_policy_version=turn.reserve.user_policy_version,
        usage=TokenUsage.told(ending.usage),
        completion_signal=CompletionRecord.told(turn.completion_signal),
        latency_ms=Latency(ttft_ms=ending.ttft_ms, total_ms=int((call.now - turn.started_at).total_seconds() * 1000)),
        policy_decisions=policy_decisions(turn, ending, settings.auth),
        error_code="cancelled" if cancelled else ending.error_code,
        attachments=attachment_uses(turn, ending),
        tool_calls=ToolCallCounts(
            file_search_calls=ending.tool_calls.file_search,
            web_search_calls=ending.tool_calls.web_search,
            code_interpreter_calls=ending.tool_calls.code_interpreter,
        ),
        **(_content(turn, ending) if settings.audit.content else {}),
    )


def attachment_deleted(call: Call, attachment: Attachment) -> AttachmentDeleted:
    """The audit event of an attachment that its user deletes."""
    return AttachmentDeleted(
        **by(call, attachment.chat_id),
        attachment_id=attachment.attachment_id,
        attachment_kind=attachment.kind,
        filename=clean_filename(attachment),
        content_type=attachment.content_type,
        size_bytes=attachment.size_bytes,
    )


def policy_decisions(turn: Turn, ending: Ending, auth: Auth) -> PolicyDecisions:
    """The decisions that let the turn run, and the quota that ended it or downgraded its model.

    If the deployment asks for a licence, the caller had it: nobody else begins a turn.
    """
    reserve = turn.reserve
    return PolicyDecisions(
        license=LicenseDecision(feature=auth.required_feature) if auth.features_claim else None,
        quota=QuotaDecisionRecord(
            decision=reserve.decision,
            quota_scope=_quota_scope(turn, ending),
            downgrade_from=reserve.selected_model if reserve.decision == "downgrade" else None,
            downgrade_reason=reserve.downgrade_reason,
        ),
    )


def attachment_uses(turn: Turn, ending: Ending) -> list[AttachmentUse]:
    """The attachments of the turn's message: one read if it has any.

    Raises ServiceUnavailable.
    """
    found = attachments.of_ids(turn.tenant_id, turn.chat_id, turn.attachment_ids)
    known = {one.attachment_id: one for one in found}
    return [_use(turn, ending, one, known.get(one)) for one in turn.attachment_ids]


def clean_filename(attachment: Attachment) -> str:
    """An attachment's name without what looks like a secret."""
    from minichat.domain.redaction import redact_text  # noqa: PLC0415  its rules cost 8 ms of a cold start

    return redact_text(attachment.filename)


def _content(turn: Turn, ending: Ending) -> dict[str, str]:
    """Prompt and answer, for deployments that want them: secrets never get to the outbox."""
    from minichat.domain.redaction import redact_text  # noqa: PLC0415  its rules cost 8 ms of a cold start

    prompt = messages.read(turn.tenant_id, turn.chat_id, turn.user_message_id)
    said = {"prompt": prompt.content if prompt is not None else "", "response": ending.text}
    return {name: redact_text(text) for name, text in said.items() if text}


def _quota_scope(turn: Turn, ending: Ending) -> str | None:
    if ending.error_code is not None and ending.error_code.endswith(CALLS_EXCEEDED):
        return ending.error_code.removesuffix(CALLS_EXCEEDED)
    return "tokens" if turn.reserve.downgrade_reason == "premium_quota_exhausted" else None


def _use(turn: Turn, ending: Ending, attachment_id: AttachmentId, known: Attachment | None) -> AttachmentUse:
    is_image = attachment_id in turn.image_ids
    return AttachmentUse(
        attachment_id=attachment_id,
        attachment_kind="image" if is_image else "document",
        filename=None if known is None else clean_filename(known),
        content_type=None if known is None else known.content_type,
        size_bytes=None if known is None else known.size_bytes,
        image_used_in_turn=ending.provider_called if is_image else None,
    )
