"""Writes `docs/events/`: a JSON Schema of each queue's events, made from the models, with an example of each event.

python -m minichat.local.event_schemas
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from minichat.events.access import AuthorizationPublished, GrantChanged, RoleUsed
from minichat.events.base import Event
from minichat.events.decisions import LicenseDecision, PolicyDecisions, QuotaDecisionRecord
from minichat.events.erasures import EraseTask, ErasureCompleted, ErasureRequested
from minichat.events.exports import ExportEnded, ExportRequested, ExportTask
from minichat.events.payloads import (
    ApiKeyChanged,
    AttachmentCleanup,
    AttachmentDeleted,
    AttachmentExpected,
    AttachmentUse,
    AuditEvent,
    ChatCleanup,
    ChatDeleted,
    ChatTitleTask,
    Cleanup,
    CompletionRecord,
    DecisionRefused,
    DocSummaryTask,
    Latency,
    PolicyPublished,
    ProvidersPublished,
    ReactionChanged,
    SystemTask,
    ThreadSummaryTask,
    TokenUsage,
    ToolCallCounts,
    TurnCancelled,
    TurnDeleted,
    TurnEnded,
    TurnReplaced,
    UsageEvent,
)
from minichat.events.references import FrontierRef
from minichat.local.tables import project_root

FOLDER = Path("docs") / "events"
QUEUES: dict[str, Any] = {
    "audit": AuditEvent,
    "usage": UsageEvent,
    "attachment-cleanup": AttachmentCleanup,
    "attachment-ingest": AttachmentExpected,
    "chat-cleanup": Cleanup,
    "thread-summary": Annotated[SystemTask, Field(discriminator="event_type")],
}

_AT = datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)
_TENANT, _USER, _CHAT, _TURN, _REQUEST, _NEW_REQUEST, _ATTACHMENT, _SECOND_ATTACHMENT, _MESSAGE = (
    f"01a1fd42-d8d3-756c-b9cd-05918e7930d{number}" for number in range(9)
)
_AUDIT: dict[str, Any] = {
    "tenant_id": _TENANT,
    "timestamp": _AT,
    "requester_type": "user",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}
_OF_CHAT = _AUDIT | {"chat_id": _CHAT}
_ENDED: dict[str, Any] = _OF_CHAT | {
    "user_id": _USER,
    "turn_id": _TURN,
    "request_id": _REQUEST,
    "selected_model": "gpt-4.1",
    "policy_version_applied": 7,
    "latency_ms": Latency(ttft_ms=412, total_ms=2871),
}
_GRANT: dict[str, Any] = _AUDIT | {
    "actor_user_id": _USER,
    "grant_id": _MESSAGE,
    "support_user_id": _REQUEST,
    "until": _AT,
    "reason": "Ticket 4711: an answer breaks off",
}
_PICTURE: dict[str, Any] = {"filename": "moon.png", "content_type": "image/png", "size_bytes": 48_213}
_DOCUMENT: dict[str, Any] = {"filename": "moon.pdf", "content_type": "application/pdf", "size_bytes": 812_004}
_ACTOR = _OF_CHAT | {"actor_user_id": _USER, "turn_id": _TURN}
_KEY: dict[str, Any] = {
    **_AUDIT,
    "actor_user_id": _USER,
    "api_key_id": "ge3tqmzvgq2tmnzy",
    "name": "CRM",
    "account": "crm-sync",
    "scopes": ["chat:create", "turn:send"],
    "expires_at": _AT,
}

EXAMPLES: dict[str, list[Event]] = {
    "audit": [
        TurnEnded(
            **_ENDED,
            event_type="turn_completed",
            effective_model="gpt-4.1-mini",
            usage=TokenUsage(input_tokens=812, output_tokens=240, cache_read_input_tokens=512),
            completion_signal=CompletionRecord(kind="incomplete", reason="length"),
            policy_decisions=PolicyDecisions(
                license=LicenseDecision(feature="ai_chat"),
                quota=QuotaDecisionRecord(
                    decision="downgrade",
                    quota_scope="tokens",
                    downgrade_from="gpt-4.1",
                    downgrade_reason="premium_quota_exhausted",
                ),
            ),
            attachments=[
                AttachmentUse(attachment_id=_ATTACHMENT, attachment_kind="image", image_used_in_turn=True, **_PICTURE),
                AttachmentUse(attachment_id=_SECOND_ATTACHMENT, attachment_kind="document", **_DOCUMENT),
            ],
            tool_calls=ToolCallCounts(web_search_calls=1),
        ),
        TurnEnded(
            **_ENDED,
            event_type="turn_failed",
            effective_model="gpt-4.1",
            usage=TokenUsage(input_tokens=812, output_tokens=0),
            policy_decisions=PolicyDecisions(quota=QuotaDecisionRecord(decision="allow")),
            error_code="provider_timeout",
            tool_calls=ToolCallCounts(),
            prompt="Use [redacted:openai-key] for this.",
        ),
        TurnReplaced(**_ACTOR, event_type="turn_retry", original_request_id=_REQUEST, new_request_id=_NEW_REQUEST),
        TurnReplaced(**_ACTOR, event_type="turn_edit", original_request_id=_REQUEST, new_request_id=_NEW_REQUEST),
        TurnDeleted(**_ACTOR, request_id=_REQUEST),
        TurnCancelled(**_ACTOR, request_id=_REQUEST),
        ReactionChanged(
            **_OF_CHAT,
            event_type="reaction_set",
            actor_user_id=_USER,
            message_id=_MESSAGE,
            request_id=_REQUEST,
            reaction="like",
        ),
        ReactionChanged(
            **_OF_CHAT,
            event_type="reaction_delete",
            actor_user_id=_USER,
            message_id=_MESSAGE,
            request_id=_REQUEST,
        ),
        ChatDeleted(**_OF_CHAT, actor_user_id=_USER),
        AttachmentDeleted(
            **_OF_CHAT, actor_user_id=_USER, attachment_id=_SECOND_ATTACHMENT, attachment_kind="document", **_DOCUMENT
        ),
        DecisionRefused(
            **_AUDIT,
            actor_user_id=_USER,
            decision="quota",
            code="quota_exceeded",
            chat_id=_CHAT,
            quota_scope="tokens",
            quota_tier="total",
            quota_period="daily",
        ),
        DecisionRefused(
            **_AUDIT,
            actor_user_id=_USER,
            decision="authorization",
            code="forbidden",
            action="turn:send",
            policies=["auditor-never-writes"],
        ),
        RoleUsed(
            **_AUDIT,
            actor_user_id=_USER,
            roles=["support"],
            action="message:list",
            policies=["support-reads"],
            resource_tenant=_TENANT,
            resource_owner=_REQUEST,
            chat_id=_CHAT,
            grant_id=_MESSAGE,
        ),
        GrantChanged(**_GRANT, event_type="grant_create"),
        GrantChanged(**_GRANT, event_type="grant_revoke"),
        AuthorizationPublished(**_AUDIT, actor_user_id=_USER, version=2, previous_version=1),
        ErasureRequested(**_AUDIT, actor_user_id=_REQUEST, erasure_id=_MESSAGE, scope="user", erased_user_id=_USER),
        ErasureCompleted(**_AUDIT, erasure_id=_MESSAGE, scope="user", counts={"chats": 3, "messages": 14}),
        ExportRequested(**_AUDIT, actor_user_id=_USER, export_id=_MESSAGE, scope="user", exported_user_id=_USER),
        ExportEnded(**_AUDIT, export_id=_MESSAGE, scope="user", outcome="ready", counts={"chat": 3, "message": 14}),
        PolicyPublished(
            tenant_id="deployment",
            timestamp=_AT,
            requester_type="system",
            policy_version=8,
            previous_version=7,
            published_by="ann@example.com",
        ),
        ProvidersPublished(
            tenant_id=_TENANT,
            timestamp=_AT,
            requester_type="system",
            version=2,
            previous_version=1,
            published_by="ann@example.com",
        ),
        ApiKeyChanged(**_KEY, event_type="api_key_create"),
        ApiKeyChanged(**_KEY, event_type="api_key_revoke"),
        PolicyPublished(
            tenant_id=_TENANT,
            timestamp=_AT,
            requester_type="system",
            layer="user",
            user_id=_USER,
            policy_version=1,
            published_by="ann@example.com",
        ),
    ],
    "usage": [
        UsageEvent(
            tenant_id=_TENANT,
            user_id=_USER,
            chat_id=_CHAT,
            turn_id=_TURN,
            request_id=_REQUEST,
            requester_type="user",
            selected_model="gpt-4.1",
            effective_model="gpt-4.1",
            tier="premium",
            terminal_state="completed",
            billing_outcome="completed",
            settlement_method="actual",
            usage=TokenUsage(input_tokens=812, output_tokens=240, reasoning_tokens=64),
            completion_signal=CompletionRecord(kind="complete"),
            reserved_credits_micro=40_960,
            actual_credits_micro=3_544,
            committed_credits_micro=3_544,
            policy_version_applied=7,
            web_search_calls=1,
            timestamp=_AT,
        )
    ],
    "attachment-cleanup": [
        AttachmentCleanup(
            tenant_id=_TENANT,
            chat_id=_CHAT,
            attachment_id=_ATTACHMENT,
            provider_file_id="file-abc",
            vector_store_id="vs_abc",
            storage_backend="openai",
            attachment_kind="document",
            deleted_at=_AT,
        )
    ],
    "attachment-ingest": [AttachmentExpected(tenant_id=_TENANT, chat_id=_CHAT, attachment_id=_ATTACHMENT)],
    "chat-cleanup": [
        ChatCleanup(tenant_id=_TENANT, chat_id=_CHAT, user_id=_USER, system_request_id=_REQUEST, chat_deleted_at=_AT),
        EraseTask(tenant_id=_TENANT, erasure_id=_MESSAGE),
        ExportTask(tenant_id=_TENANT, export_id=_MESSAGE),
    ],
    "thread-summary": [
        ThreadSummaryTask(
            tenant_id=_TENANT,
            chat_id=_CHAT,
            user_id=_USER,
            system_request_id=_REQUEST,
            system_task_type="thread_summary_update",
            base_frontier=FrontierRef(created_at=_AT, message_id=_TURN),
            frozen_target=FrontierRef(created_at=_AT, message_id=_NEW_REQUEST),
        ),
        ChatTitleTask(
            tenant_id=_TENANT,
            chat_id=_CHAT,
            user_id=_USER,
            system_request_id=_REQUEST,
            system_task_type="chat_title",
            user_message_id=_MESSAGE,
            assistant_message_id=_TURN,
        ),
        DocSummaryTask(
            tenant_id=_TENANT,
            chat_id=_CHAT,
            user_id=_USER,
            system_request_id=_REQUEST,
            system_task_type="doc_summary",
            attachment_id=_ATTACHMENT,
        ),
    ],
}


def documents() -> dict[str, str]:
    """The contents of each generated file of `docs/events/`, by name."""
    return {f"{queue}.schema.json": _text(_schema(queue, model)) for queue, model in QUEUES.items()}


def main() -> None:
    """Writes the files."""
    folder = project_root() / FOLDER
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


def _schema(queue: str, model: Any) -> dict[str, Any]:
    made = _plain(TypeAdapter(model).json_schema(mode="serialization"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:minichat:events:{queue}:1",
        **made,
        "title": f"Events of the queue {queue}",
        "examples": [json.loads(example.payload()) for example in EXAMPLES[queue]],
    }


def _plain(schema: Any) -> Any:
    """Drops titles that only repeat names, and requires `event_type`, which every message has."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(value) for name, value in schema.items() if not (name == "title" and isinstance(value, str))}
    if "event_type" in (members := plain.get("properties", {})):
        members["event_type"].pop("default", None)
        plain["required"] = ["event_type", *(name for name in plain.get("required", []) if name != "event_type")]
    return plain


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
