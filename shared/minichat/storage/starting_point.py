"""What a new turn, or a turn's deletion, starts from: the chat's head and all that goes with it, as of one moment.

Two reads are not one moment, and neither is one batch: a turn may begin, end or be deleted meanwhile. The head names
the latest turn and the time of the last message; whatever disagrees with the head is read again. The conditions of the
write that follows notice later changes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from minichat import greenlets
from minichat.domain.attachment import Attachment
from minichat.domain.chat import Chat
from minichat.domain.identity import AttachmentId, Call, ChatId, RequestId
from minichat.domain.policy import UserLimits
from minichat.domain.policy_layers import UserLayer
from minichat.domain.quota_left import QuotaUse
from minichat.domain.rates import UNLIMITED, Rates
from minichat.domain.summary import Summary
from minichat.domain.tools import Document
from minichat.domain.turn import Turn
from minichat.storage import (
    attachments,
    chats,
    documents,
    keys,
    messages,
    policies,
    quota,
    summaries,
    tenant_rates,
    turns,
)
from minichat.storage.items import batch_get
from minichat.storage.messages import Newest

MESSAGES_OF_A_TURN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """A chat's head, one turn of it, and its newest messages."""

    chat: Chat | None
    turn: Turn | None
    recent: Newest = field(default_factory=lambda: Newest([]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Latest):
    """What a new turn starts from: `Latest`, the caller's quota and layer of the policy, whether they are being erased,
    the chat's summary and ready documents, and those of the requested attachments that exist."""

    quota_use: QuotaUse
    user_layer: UserLayer | None = None
    being_erased: bool = False
    summary: Summary | None
    documents: tuple[Document, ...] = ()
    attachments: tuple[Attachment, ...] = ()


T = TypeVar("T", bound=Latest)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read: a turn of a chat, attachments by their ids, and `messages` of the newest, fewer once their text
    exceeds `at_most_bytes`; `limits` and `rates` are the caller's, the limits where they have none of their own."""

    chat_id: ChatId
    request_id: RequestId
    limits: UserLimits
    messages: int
    at_most_bytes: int
    attachment_ids: tuple[AttachmentId, ...] = ()
    rates: Rates = UNLIMITED


def look(call: Call, wanted: Wanted) -> Opened:
    """All that a new turn starts from, usually in the time of one round trip.

    Raises ServiceUnavailable.
    """
    where = call.caller.tenant_id, wanted.chat_id
    return _of_one_moment(
        wanted.request_id,
        lambda: open_for_turn(call, wanted),
        lambda: messages.recent(*where, wanted.messages, at_most_bytes=wanted.at_most_bytes),
    )


def look_at_latest(call: Call, chat_id: ChatId, request_id: RequestId) -> Latest:
    """What the deletion of the latest turn starts from. Its messages move as they are found; long texts are not read.

    Raises ServiceUnavailable.
    """
    where = call.caller.tenant_id, chat_id

    def head() -> Latest:
        chat, turn = turns.read(*where, request_id)
        return Latest(chat=chat, turn=turn)

    return _of_one_moment(
        request_id,
        head,
        lambda: messages.newest(*where, MESSAGES_OF_A_TURN),
    )


def _of_one_moment(request_id: RequestId, first: Callable[[], T], newest: Callable[[], Newest]) -> T:
    """What `first` reads with the head, and the newest messages: both in the state that the head shows."""
    found, recent = greenlets.together(first, newest)
    chat = found.chat
    if chat is None:
        return found
    if found.turn is None and chat.latest_request_id == request_id:
        # The turn began between its own read and the head's.
        _, turn = turns.read(chat.tenant_id, chat.chat_id, request_id)
        found = replace(found, turn=turn)
    return replace(found, recent=recent if recent.is_of(chat) else newest())


def open_for_turn(call: Call, wanted: Wanted) -> Opened:
    """What `look` returns, without the messages: one batch of consistent reads.

    Raises ServiceUnavailable.
    """
    tenant_id, chat_id = call.caller.tenant_id, wanted.chat_id
    chat_key, turn_key = keys.chat(tenant_id, chat_id), keys.turn(tenant_id, chat_id, wanted.request_id)
    quota_key, summary_key = quota.key(tenant_id, call.caller.user_id, call.now), keys.summary(tenant_id, chat_id)
    documents_key, own_key = keys.documents(tenant_id, chat_id), keys.user_policy(tenant_id, call.caller.user_id)
    files = [keys.attachment(tenant_id, chat_id, attachment_id) for attachment_id in wanted.attachment_ids]
    of_tenant = keys.tenant_rates(tenant_id) if wanted.rates.of_tenant else []
    found = batch_get([chat_key, turn_key, quota_key, summary_key, documents_key, own_key, *files, *of_tenant])
    quota_use = quota.quota_use(wanted.limits, found.get(quota_key), call.now)
    tenant = tenant_rates.use(tenant_id, found, call.now)
    return Opened(
        chat=chats.from_raw(found.get(chat_key)),
        turn=turns.from_raw(found.get(turn_key)),
        quota_use=replace(quota_use, rates=replace(quota_use.rates, tenant=tenant, limits=wanted.rates)),
        user_layer=policies.user_layer(found.get(own_key)),
        being_erased=policies.is_stopped(found.get(own_key)),
        summary=summaries.from_raw(found.get(summary_key)),
        documents=documents.from_raw(found.get(documents_key)),
        attachments=tuple(attachments.from_raw(found[key]) for key in files if key in found),
    )


def look_at_quota(call: Call, limits: UserLimits) -> tuple[QuotaUse, UserLayer | None]:
    """The caller's quota under these limits, and their layer of the policy, read at once.

    Raises ServiceUnavailable.
    """
    caller = call.caller
    quota_key = quota.key(caller.tenant_id, caller.user_id, call.now)
    own_key = keys.user_policy(caller.tenant_id, caller.user_id)
    found = batch_get([quota_key, own_key])
    return quota.quota_use(limits, found.get(quota_key), call.now), policies.user_layer(found.get(own_key))
