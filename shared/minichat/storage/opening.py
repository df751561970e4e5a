"""What a new turn starts from, read in one round trip."""

from collections.abc import Sequence
from dataclasses import dataclass

from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.identity import AttachmentId, Call, ChatId, RequestId
from minichat.domain.policy import UserLimits
from minichat.domain.quota_use import QuotaUse
from minichat.domain.summary import Summary
from minichat.domain.tools import Document
from minichat.domain.turn import Turn
from minichat.storage import attachments, chats, documents, keys, quota, summaries, turns
from minichat.storage.items import batch_get


@dataclass(frozen=True, slots=True)
class Opened:
    """What a new turn starts from: the chat's head, one turn of it, where the caller stands, the chat's summary and
    ready documents, and those of the attachments asked for that there are."""

    chat: Chat | None
    turn: Turn | None
    quota_use: QuotaUse
    summary: Summary | None
    documents: tuple[Document, ...] = ()
    attachments: tuple[Attachment, ...] = ()


def open_for_turn(
    call: Call, chat_id: ChatId, request_id: RequestId, limits: UserLimits, attachment_ids: Sequence[AttachmentId] = ()
) -> Opened:
    """All of it in one consistent round trip."""
    tenant_id = call.caller.tenant_id
    chat_key, turn_key = keys.chat(tenant_id, chat_id), keys.turn(tenant_id, chat_id, request_id)
    quota_key, summary_key = quota.key(tenant_id, call.caller.user_id, call.now), keys.summary(tenant_id, chat_id)
    documents_key = keys.documents(tenant_id, chat_id)
    wanted = [keys.attachment(tenant_id, chat_id, attachment_id) for attachment_id in attachment_ids]
    found = batch_get([chat_key, turn_key, quota_key, summary_key, documents_key, *wanted])
    return Opened(
        chat=chats.from_raw(found.get(chat_key)),
        turn=turns.from_raw(found.get(turn_key)),
        quota_use=quota.quota_use(limits, found.get(quota_key), call.now),
        summary=summaries.from_raw(found.get(summary_key)),
        documents=documents.from_raw(found.get(documents_key)),
        attachments=tuple(attachments.from_raw(found[key]) for key in wanted if key in found),
    )
