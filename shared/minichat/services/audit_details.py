"""What the audit trail says of who asked for something, and of a turn besides its end: the decisions that let it run,
and what it was sent with.
"""

from datetime import datetime
from typing import TypedDict

from minichat.domain.attachment import Attachment
from minichat.domain.identity import AttachmentId, Call, ChatId
from minichat.domain.settlement import Ending
from minichat.domain.turn import Turn
from minichat.events.decisions import LicenseDecision, PolicyDecisions, QuotaDecisionRecord
from minichat.events.payloads import AttachmentUse
from minichat.settings import Auth
from minichat.storage import attachments

CALLS_EXCEEDED = "_calls_exceeded"


class ByCaller(TypedDict):
    """The members of an audit event that are its request's."""

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


def policy_decisions(turn: Turn, ending: Ending, auth: Auth) -> PolicyDecisions:
    """The decisions that let the turn run, and the quota that ended it or had another model answer it.

    Its caller had the licence where the deployment asks for one: nobody else begins a turn.
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
    """What the turn's message was sent with: one read where there is any.

    Raises ServiceUnavailable.
    """
    found = attachments.of_ids(turn.tenant_id, turn.chat_id, turn.attachment_ids)
    known = {one.attachment_id: one for one in found}
    return [_use(turn, ending, one, known.get(one)) for one in turn.attachment_ids]


def clean_filename(attachment: Attachment) -> str:
    """An attachment's name without what looks like a secret."""
    from minichat.domain.redaction import redact_text  # noqa: PLC0415  its rules cost 8 ms of a cold start

    return redact_text(attachment.filename)


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
