"""What the OpenAPI document says of the chat API, and its examples: a short conversation about the moon."""

from typing import Any

from minichat import __version__
from minichat.domain import stream
from minichat.domain.answer_end import COMPLETE
from minichat.domain.usage import Usage
from minichat.http.document import About
from minichat.http.examples import INSTANT, REQUEST_ID
from minichat.http.sse import frame
from minichat.services.channel import Numbered

_CHAT_ID = "01a1fd42-d8d3-756c-b9cd-05918e7930d0"
_MESSAGE_ID = "01a1fd42-e7a2-7b31-8c5e-6f0b9d2a4c18"
_ANSWER_ID = "01a1fd42-e7a2-7b32-9d6f-701cae3b5d29"
_ATTACHMENT_ID = "01a1fd43-0b5c-7d44-a1f2-3e4d5c6b7a80"
_LATER = "2026-03-02T09:30:04Z"
_QUESTION, _ANSWER = "How far away is the moon?", "About 384,400 km."
_NEXT_DAY, _NEXT_MONTH = "2026-03-03T00:00:00Z", "2026-04-01T00:00:00Z"

_CHAT = {
    "id": _CHAT_ID,
    "model": "gpt-5.2",
    "title": "The moon",
    "is_temporary": False,
    "message_count": 2,
    "created_at": INSTANT,
    "updated_at": _LATER,
}
_COMPLETE = {"kind": "complete"}
_USED = {"input_tokens": 412, "output_tokens": 9, "model": "gpt-5.2"}
_NO_TOOLS = {"file_search": 0, "web_search": 0, "code_interpreter": 0}
_MODELS = {"effective_model": "gpt-5.2", "selected_model": "gpt-5.2", "quota_decision": "allow"}
_PAGE = {"limit": 20, "next_cursor": None, "prev_cursor": None}
_ATTACHMENT = {
    "id": _ATTACHMENT_ID,
    "filename": "moon.pdf",
    "content_type": "application/pdf",
    "size_bytes": 48_213,
    "status": "ready",
    "kind": "document",
    "doc_summary": "Distances, phases and orbit of the moon.",
    "summary_updated_at": _LATER,
    "created_at": INSTANT,
}
_EXPORT_ID = "01a1fd47-4f50-7b62-9d7e-8f9a0b1c2d3e"
_FILE = {
    "name": "data-00001.jsonl",
    "size_bytes": 91_204,
    "url": "https://uploads.s3.us-east-1.amazonaws.com/acme/exports/…",
    "url_expires_at": "2026-03-02T09:40:04Z",
}
_EXPORT = {
    "id": _EXPORT_ID,
    "scope": "chat",
    "user_id": "ann",
    "chat_id": _CHAT_ID,
    "state": "ready",
    "requested_at": INSTANT,
    "ended_at": _LATER,
    "expires_at": "2026-03-09T09:30:00Z",
    "counts": {"chat": 1, "message": 2, "turn": 1},
    "files": [_FILE],
}
_FORM = {
    "url": "https://uploads.s3.us-east-1.amazonaws.com/",
    "fields": {"key": "acme/moon.pdf", "policy": "eyJleHBpcmF0aW9uIjoi…", "x-amz-signature": "5d4f…"},
    "expires_at": "2026-03-02T09:40:00Z",
}
_MODEL = {
    "model_id": "gpt-5.2",
    "display_name": "GPT-5.2",
    "tier": "premium",
    "multiplier_display": "1x",
    "description": "Thorough, for hard questions.",
    "multimodal_capabilities": ["vision"],
    "context_window": 400_000,
}
_MESSAGES = [
    {
        "id": _MESSAGE_ID,
        "request_id": REQUEST_ID,
        "role": "user",
        "content": _QUESTION,
        "attachments": [],
        "my_reaction": None,
        "created_at": INSTANT,
    },
    {
        "id": _ANSWER_ID,
        "request_id": REQUEST_ID,
        "role": "assistant",
        "content": _ANSWER,
        "attachments": [],
        "my_reaction": "like",
        "input_tokens": 412,
        "output_tokens": 9,
        "created_at": _LATER,
        "completion_signal": _COMPLETE,
        "citations": [],
        "tool_calls": _NO_TOOLS,
        **_MODELS,
    },
]
_TURN = {
    "request_id": REQUEST_ID,
    "state": "done",
    "assistant_message_id": _ANSWER_ID,
    "updated_at": _LATER,
    "completion_signal": _COMPLETE,
    "citations": [],
    "usage": _USED,
    "tool_calls": _NO_TOOLS,
    **_MODELS,
}

_BILL = {
    "request_id": REQUEST_ID,
    "state": "done",
    "ended_by": "provider",
    "selected_model": "gpt-5.2",
    "effective_model": "gpt-5.2",
    "policy_versions": {"deployment": 7, "tenant": 0, "user": 0},
    "estimate": {
        "message_tokens": 7,
        "context_tokens": 405,
        "image_tokens": 0,
        "tool_tokens": 0,
        "answer_tokens": 4_096,
    },
    "rates": {
        "input_credits_micro_per_million": 2_000_000,
        "output_credits_micro_per_million": 8_000_000,
        "bytes_per_token": 4,
    },
    "reserved": {"tokens": 4_508, "credits_micro": 33_592, "tool_calls": _NO_TOOLS, "image_inputs": 0},
    "counted": _USED,
    "tool_calls": _NO_TOOLS,
    "charged": {"credits_micro": 896, "counted_credits_micro": 896, "rule": "actual"},
    "run": {
        "write_units": {"begin": 14, "stream": 2, "end": 18, "together": 34},
        "read_units": 3,
        "function_ms": 4_120,
    },
    "kept_bytes": 3_480,
}


def _streamed() -> str:
    told: list[stream.StreamEvent] = [
        stream.Started(REQUEST_ID, _ANSWER_ID, is_new_turn=True),
        stream.Delta("About 384,"),
        stream.Delta("400 km."),
        stream.Done(COMPLETE, Usage(412, 9), "gpt-5.2", "gpt-5.2", "allow"),
    ]
    return b"".join(frame(Numbered(number, stream.told(event))) for number, event in enumerate(told, 1)).decode()


def _period(period: str, limit: int, used: int, next_reset: str) -> dict[str, Any]:
    return {
        "period": period,
        "limit_credits_micro": limit,
        "used_credits_micro": used,
        "remaining_credits_micro": limit - used,
        "remaining_percentage": (limit - used) * 100 // limit,
        "next_reset": next_reset,
        "warning": False,
        "exhausted": False,
    }


_TIERS = [
    {
        "tier": tier,
        "periods": [
            _period("daily", daily, daily // 4, _NEXT_DAY),
            _period("monthly", 20 * daily, daily, _NEXT_MONTH),
        ],
    }
    for tier, daily in (("premium", 2_000_000), ("total", 10_000_000))
]
_SEARCHES = {
    "scope": "web_search",
    "unit": "calls",
    "period": "daily",
    "limit": 75,
    "used": 3,
    "remaining": 72,
    "next_reset": _NEXT_DAY,
    "exhausted": False,
}
_DAY = {"day": "2026-03-02", "turns": 12, "credits_micro": 431_200, "input_tokens": 9_804, "output_tokens": 3_117}

ABOUT = About(
    title="Mini Chat",
    summary="Chats whose answers stream; every turn can be read, retried, edited and deleted.",
    description="""\
Every operation but those of the tag `service` needs a bearer token. Refusals are problem documents (RFC 9457), whose
`code` is the stable word.

A send, a retry and an edit answer with server-sent events. A stream that was cut is resumed after its last event
(`resumeTurn`), and leaving it does not end the turn. A send with a `request_id` of the client's own happens once,
however often it is repeated.""",
    tags={
        "chats": "Conversations of one person.",
        "messages": "What was asked and answered in a chat, and what the person thinks of it.",
        "turns": "A message and its answer: ask, follow the answer, and change the latest one.",
        "attachments": "Files of a chat.",
        "models": "The models that a chat can have.",
        "quota": "What the person may still use, and what they have used.",
        "exports": "Copies of a chat, or of everything that is kept of the person.",
        "service": "The API itself. Needs no token.",
    },
    examples={
        "CreateChat": {"title": "The moon", "model": "gpt-5.2"},
        "RenameChat": {"title": "The moon and the tides"},
        "ChatDetail": _CHAT,
        "Page_ChatDetail_": {"items": [_CHAT], "page_info": _PAGE},
        "SendMessageBody": {"content": _QUESTION, "request_id": REQUEST_ID},
        "EditTurnBody": {"content": "How far away is the moon, in miles?"},
        "StreamEvent": _streamed(),
        "TurnStatus": _TURN,
        "Bill": _BILL,
        "listMessages": {"items": _MESSAGES, "page_info": _PAGE},
        "React": {"reaction": "like"},
        "ReactionView": {"message_id": _ANSWER_ID, "reaction": "like", "created_at": _LATER},
        "uploadAttachment": {"file": "(the bytes of moon.pdf)"},
        "AnnounceFile": {"filename": "moon.pdf", "content_type": "application/pdf", "size_bytes": 48_213},
        "AttachmentDetail": _ATTACHMENT,
        "AttachmentUpload": {**_ATTACHMENT, "status": "pending", "upload": _FORM},
        "Page_AttachmentDetail_": {"items": [_ATTACHMENT], "page_info": _PAGE},
        "ModelView": _MODEL,
        "ModelList": {"items": [_MODEL]},
        "QuotaStatus": {"tiers": _TIERS, "counts": [_SEARCHES], "warning_threshold_pct": 80},
        "UsageReport": {"items": [_DAY]},
        "ExportView": _EXPORT,
        "Health": {"status": "ok", "version": __version__},
        "getOpenApi": {"openapi": "3.1.0", "info": {"title": "Mini Chat", "version": __version__}, "paths": {}},
    },
    parameters={
        "chat_id": _CHAT_ID,
        "request_id": REQUEST_ID,
        "message_id": _ANSWER_ID,
        "attachment_id": _ATTACHMENT_ID,
        "export_id": _EXPORT_ID,
        "model_id": "gpt-5.2",
        "idempotency-key": "b7d1b2c0-moon",
        "last-event-id": 3,
        "after": 3,
        "prefer": "wait=10",
        "limit": 20,
        "from": "2026-03-01",
        "to": "2026-03-31",
        "listChats $filter": "updated_at ge 2026-03-01T00:00:00Z",
        "listMessages $filter": "role eq 'assistant'",
        "$orderby": "created_at desc",
        "$select": ["id", "role", "content"],
    },
)
