"""What an export says of each stored item: a line of JSON with its `type`, in the words of the API.

Nothing of it says how a provider calls anything, and no secret, nor its digest, is in it.
"""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from minichat.domain import answer_end, citations, usage
from minichat.domain.chat import Chat
from minichat.domain.identity import from_micros
from minichat.domain.stream import models_told
from minichat.domain.turn import Turn, TurnState
from minichat.observability import logger
from minichat.storage import (
    attachments,
    authorizations,
    chats,
    export_pages,
    keys,
    messages,
    persons,
    policies,
    quota,
    summaries,
    turns,
    unreadable,
    usage_ledger,
)
from minichat.storage.keys import Raw
from minichat.storage.persons import Whose
from minichat.storage.unreadable import Unreadable

ExportLine = dict[str, Any]


def line_of(raw: Raw, whose: Whose, heads: dict[str, Raw]) -> ExportLine | None:
    """The line of an item; None for what is another's, of a deleted chat, or nothing that anybody said or chose.

    An item that this version cannot read has a line that says so. Raises ServiceUnavailable.
    """
    key = keys.of(raw)
    made = _LINES.get(export_pages.what(key))
    if made is None or not _is_in_it(raw, whose, heads):
        return None
    line = unreadable.read(raw, made)
    if isinstance(line, Unreadable):
        logger.warning("an item cannot be exported", extra={"item": line.key, "reason": line.reason})
        return {"type": "unreadable", "item": key.sk}
    return line


def _is_in_it(raw: Raw, whose: Whose, heads: dict[str, Raw]) -> bool:
    key = keys.of(raw)
    if not keys.is_of_chat(key.pk):
        return persons.fate(raw, whose) is not None
    head = heads.get(key.pk)
    return head is not None and persons.fate(head, whose) == "chat" and "deleted_at" not in head


def _chat(raw: Raw) -> ExportLine:
    chat = chats.from_raw(raw)
    assert isinstance(chat, Chat)
    return {
        "type": "chat",
        "id": chat.chat_id,
        "user_id": chat.user_id,
        "title": chat.title,
        "model": chat.model,
        "is_temporary": chat.is_temporary,
        "message_count": chat.message_count,
        "created_at": chat.created_at.isoformat(),
        "updated_at": chat.updated_at.isoformat(),
    }


def _message(raw: Raw) -> ExportLine:
    key = keys.of(raw)
    where = keys.chat_of(key.pk)
    message = messages.of_item(*where, key, raw)
    line: ExportLine = {
        "type": "message",
        "chat_id": where[1],
        "id": message.message_id,
        "request_id": message.request_id,
        "role": message.role,
        "content": message.content,
        "created_at": message.created_at.isoformat(),
        "attachment_ids": list(message.attachment_ids),
        "my_reaction": message.reaction,
        "taken_back": "deleted_at" in raw,
    }
    if message.role == "assistant":
        line |= {
            "model": message.model,
            "input_tokens": message.input_tokens,
            "output_tokens": message.output_tokens,
            "completion_signal": answer_end.told(message.completion_signal),
            "citations": [citations.told(one) for one in message.citations],
            "tool_calls": asdict(message.tool_calls),
        }
    return line


def _turn(raw: Raw) -> ExportLine:
    turn = turns.from_raw(raw)
    assert isinstance(turn, Turn)
    made = turn.reserve
    return {
        "type": "turn",
        "chat_id": turn.chat_id,
        "request_id": turn.request_id,
        "state": turn.state.public,
        "error_code": turn.error_code if turn.state is TurnState.FAILED else None,
        "started_at": turn.started_at.isoformat(),
        "ended_at": None if turn.completed_at is None else turn.completed_at.isoformat(),
        "taken_back": turn.deleted_at is not None,
        "usage": usage.told(turn.usage, made.effective_model),
        "tool_calls": asdict(turn.tool_calls),
        "credits_micro": turn.committed_credits_micro,
        **models_told(made.effective_model, made.selected_model, made.decision, made.downgrade_reason),
    }


def _attachment(raw: Raw) -> ExportLine | None:
    (file,) = attachments.pictured([attachments.from_raw(raw)])
    if file.deleted_at is not None:
        return None
    picture = file.thumbnail
    return {
        "type": "attachment",
        "chat_id": file.chat_id,
        "id": file.attachment_id,
        "kind": file.kind,
        "filename": file.filename,
        "content_type": file.content_type,
        "size_bytes": file.size_bytes,
        "status": file.status.value,
        "error_code": file.error_code,
        "doc_summary": file.summary,
        "created_at": file.created_at.isoformat(),
        "img_thumbnail": None
        if picture is None
        else {
            "content_type": "image/webp",
            "width": picture.width,
            "height": picture.height,
            "data_base64": b64encode(picture.data).decode(),
        },
    }


def _summary(raw: Raw) -> ExportLine | None:
    made = summaries.from_raw(raw)
    if made is None:
        return None
    chat_id = keys.chat_of(keys.of(raw).pk)[1]
    return {"type": "summary", "chat_id": chat_id, "up_to": made.frontier.message_id, "text": made.text}


def _quota(raw: Raw) -> ExportLine:
    said = quota.statement(raw)
    counts = [{"period": period, "counted": counted, "is": value} for (period, counted), value in said.says.items()]
    return {"type": "quota", "user_id": said.account.user_id, "month": said.account.month, "counts": counts}


def _limits(raw: Raw) -> ExportLine | None:
    layer = policies.user_layer(raw)
    if layer is None:
        return None
    return {"type": "limits", "user_id": keys.user_of(keys.of(raw).pk)[1], "layer": _plain(layer)}


def _usage(raw: Raw) -> ExportLine:
    total = usage_ledger.total_of(raw)
    used = asdict(total.used)
    credits = used.pop("committed_micro")
    return {"type": "usage", "user_id": total.user_id, "day": total.day, "credits_micro": credits, **used}


def _policy(raw: Raw) -> ExportLine | None:
    tenant_id, version = export_pages.version_of(keys.of(raw))
    found = policies.read(version, policies.of_tenant(tenant_id))
    if found is None:
        return None
    about = {"version": version, "published_at": found.at.isoformat(), "published_by": found.by}
    return {"type": "policy", **about, "withdrawn": found.withdrawn, "layer": _plain(found.policy)}


def _authorization(raw: Raw) -> ExportLine | None:
    tenant_id, version = export_pages.version_of(keys.of(raw))
    found = authorizations.read(tenant_id, version)
    if found is None:
        return None
    about = {"version": version, "published_at": found.at.isoformat(), "published_by": found.by}
    return {"type": "authorization", **about, "policies": found.text}


def _api_key(raw: Raw) -> ExportLine:
    words = {
        name: keys.text(raw, name, "") or None for name in ("name", "account", "scopes", "created_by", "revoked_by")
    }
    instants = {name: _instant(raw, name) for name in ("created_at", "ends_at", "last_used_at", "revoked_at")}
    return {"type": "api_key", "id": keys.of(raw).sk, **words, **instants}


def _grant(raw: Raw) -> ExportLine:
    words = {name: keys.text(raw, name) for name in ("user_id", "reason", "granted_by")}
    instants = {name: _instant(raw, name) for name in ("granted_at", "until")}
    return {"type": "grant", "id": keys.of(raw).sk, **words, **instants}


def _plain(document: Any) -> dict[str, Any]:
    plain: dict[str, Any] = document.model_dump(mode="json", exclude_unset=True)
    return plain


def _instant(raw: Raw, name: str) -> str | None:
    return from_micros(keys.number(raw, name)).isoformat() if name in raw else None


_LINES: dict[str, Callable[[Raw], ExportLine | None]] = {
    "CHAT": _chat,
    "MSG": _message,
    "WITHDRAWN": _message,
    "TURN": _turn,
    "ATT": _attachment,
    "SUMMARY": _summary,
    "QUOTA": _quota,
    "LIMITS": _limits,
    "USAGE": _usage,
    "POLICY V": _policy,
    "AUTHORIZATION V": _authorization,
    "APIKEY": _api_key,
    "GRANTS": _grant,
}
"""By what an item is: `storage.export_pages.what`."""
